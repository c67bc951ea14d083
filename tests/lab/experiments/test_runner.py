"""Parts of an experiment one after the other: order, progress, checkpoints; and the same records in any processes."""

import json
import os

import numpy as np
import pytest

import bnkit
from bnkit.lab.experiments import (
    activations,
    batch_size,
    learning_rate,
    overfitting,
    resumption,
    runner,
    weight_scale,
    workers,
)
from bnkit.lab.experiments.plan import Part, Plan

SETTINGS = weight_scale.Settings()
UPDATES = 5
LITTLE = {"data": "synthetic", "backend": "numpy", "seeds": 2, "epochs": 2, "hidden": (8, 6)}
EXPERIMENTS = {
    "activations": (activations, {"rows": 60, "batch_size": 20, "bins": 5}),
    "batch-size": (batch_size, {"rows": 64, "batches": (2, 8, 32), "rank_batches": (8,), "draws": 20}),
    "learning-rate": (learning_rate, {"measured": (7, 20)}),
    "weight-scale": (weight_scale, {"rows": 60, "batch_size": 20, "scales": (1.0, 0.3, 0.1, 0.03)}),
    "overfitting": (overfitting, {"rows": 60, "batch_size": 20, "every": 1, "search_batches": (20, 10)}),
}


def part(name, *, effort=1, before=lambda session: None):
    """A part that calls `before`, then tells of its updates and returns one record."""

    def work(session):
        before(session)
        for n in range(UPDATES):
            session.tell(n + 1)
        return [{"name": name}]

    return Part(name, UPDATES, effort, work)


def never(session):
    raise AssertionError("begun")


def run(listed, *, data=(), settings=SETTINGS, **options):
    return runner.run(lambda settings: Plan(bnkit.get_backend("numpy"), data, listed), settings, **options)


def test_those_of_greatest_effort_come_first_and_their_records_in_the_order_of_the_parts():
    begun = []
    listed = [part(n, effort=e, before=lambda session, n=n: begun.append(n)) for n, e in (("a", 1), ("b", 3), ("c", 2))]
    assert [r["name"] for r in run(listed)] == ["a", "b", "c"]
    assert begun == ["b", "c", "a"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_has_the_same_records_in_any_processes(experiment, monkeypatch):
    module, changes = EXPERIMENTS[experiment]
    settings, began, found = module.Settings(**LITTLE, **changes), [], []
    start = workers.pool
    monkeypatch.setattr(workers, "pool", lambda count, **kinds: began.append((count, kinds)) or start(count, **kinds))
    monkeypatch.setattr(runner, "_WORTH_PROCESSES", 0)
    for threads in (1, 2, 3):
        monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", threads)
        found.append(module.run(settings))
    assert began == [(2, {"processes": True}), (3, {"processes": True})]
    assert found[0] == found[1] == found[2]


def test_parts_of_little_effort_keep_to_this_process(monkeypatch):
    monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", 2)
    found = []
    run([part(n, before=lambda session: found.append(os.getpid())) for n in "abcd"])
    assert found == [os.getpid()] * 4


def test_progress_never_goes_back_and_ends_with_all_updates():
    told = []
    listed = [*(part(name) for name in "abcde"), Part("silent", UPDATES, 1, lambda session: [])]
    run(listed, on_progress=lambda *n: told.append(n))
    assert told[0] == (0, 6 * UPDATES)
    assert told[-1] == (6 * UPDATES, 6 * UPDATES)
    assert told == sorted(told)


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_done_and_begins_no_other_part(tmp_path, error):
    def fails(session):
        raise error

    listed = [part("done", effort=3), part("fails", effort=2, before=fails), part("next", before=never)]
    with pytest.raises(type(error)):
        run(listed, checkpoint=tmp_path / "c")
    assert json.loads((tmp_path / "c").read_text())["done"] == {"done": [{"name": "done"}]}


def test_what_is_done_is_not_done_again(tmp_path):
    first = run([part("a")], checkpoint=tmp_path / "c")

    told, listed = [], [part("a", before=never), part("b")]
    found = run(listed, checkpoint=tmp_path / "c", on_progress=lambda *n: told.append(n))
    assert found == [*first, {"name": "b"}]
    assert told[0] == (UPDATES, 2 * UPDATES)


def test_a_part_of_the_name_of_another_is_refused():
    with pytest.raises(ValueError, match="settings must name each case once, got 'a' more than once"):
        run([part("a"), part("b"), part("a")])


@pytest.mark.parametrize("done", [[], None, 3, {"a": []}, {"a": 3}])
def test_a_checkpoint_whose_records_are_none_is_damaged(tmp_path, done):
    path = tmp_path / "c"
    run([part("a")], checkpoint=path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"done": done}))
    with pytest.raises(ValueError, match="c must be a checkpoint of an experiment, and is damaged"):
        run([part("a")], checkpoint=path)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("settings", {"settings": weight_scale.Settings(seeds=4)}),
        ("data", {"data": [np.ones(3, np.float32)]}),
        ("versions", {"versions": {"numpy": "0.1"}}),
        ("machine", {"machine": {"simd": "another"}}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path, monkeypatch, what, changes):
    path, data = tmp_path / "c", [np.zeros(3, np.float32)]
    run([part("a")], data=data, checkpoint=path)
    before = path.read_bytes()
    for name in ("versions", "machine"):
        if name in changes:
            monkeypatch.setattr(resumption, name, lambda backend, found=changes[name]: found)
    settings, data = changes.get("settings", SETTINGS), changes.get("data", data)
    with pytest.raises(ValueError, match=f"same settings, versions, machine, data, but its {what} differ; delete it"):
        run([part("a")], settings=settings, data=data, checkpoint=path)
    assert path.read_bytes() == before


def test_a_run_goes_on_with_other_threads(tmp_path, monkeypatch):
    found = run([part("a")], checkpoint=tmp_path / "c")
    monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", 7)
    assert run([part("a", before=never)], checkpoint=tmp_path / "c") == found
