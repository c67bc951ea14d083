"""The learning-rate experiment: its networks, what a killed run goes on from, its tables and verdicts."""

import dataclasses
import re

import numpy as np
import pytest

import bnkit
from bnkit import checkpoint as files
from bnkit.experiments import learning_rate, learning_rate_groups
from bnkit.experiments.learning_rate import PAPER, PUBLISHED, Settings

SMALL = Settings(
    data="synthetic",
    seeds=2,
    updates=30,
    cells=((0.5, 0.1, "relu"), (0.1, 0.5, "sigmoid"), (0.5, 1.0, "relu")),
    hidden=(6, 5),
    measured=(7, 20),
)
DIVERGING = dataclasses.replace(SMALL, cells=((0.5, 0.1, "relu"), (50.0, 1e30, "relu")), seeds=1)


@pytest.fixture(scope="module")
def records():
    return learning_rate.run(SMALL)


def trained_alone(cell, batch_norm, seed, updates):
    """The network of a cell by the library's plain means."""
    scale, lr, activation = cell
    loaded = bnkit.data.load("synthetic")
    norm = {"decay": 0.99, "eps": 1e-3, "correction": 0} if batch_norm else False
    sizes = (64, *SMALL.hidden, 10)
    model = bnkit.MLP(sizes, batch_norm=norm, activation=activation, bias=not batch_norm, init=scale, seed=seed)
    optimizer = bnkit.optim.SGD(lr=lr)
    each = 1000 // 60
    for step in range(updates):
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, step // each))).permutation(1000)
        rows = order[step % each * 60 :][:60]
        optimizer.update(model.params, model.loss_and_grads(loaded.x_train[rows], loaded.t_train[rows], step=step)[1])
    return model, loaded


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("cell", SMALL.cells, ids=str)
def test_a_network_of_a_group_is_the_network_trained_alone(records, cell, batch_norm):
    model, loaded = trained_alone(cell, batch_norm, 1, 30)
    (found,) = [
        r
        for r in records
        if (r["scale"], r["lr"], r["activation"]) == cell
        and (r["batch_norm"], r["seed"], r["step"]) == (batch_norm, 1, 30)
    ]
    # Products of replicas may be summed in another order: one of the 500 test rows may change sides.
    assert found["accuracy"] == pytest.approx(float(model.accuracy(loaded.x_test, loaded.t_test)), abs=0.0021)
    before = bnkit.Sequential(*model.network.layers[:-2])
    inputs = before.forward(loaded.x_test, train=False)[0][:, 0]
    expected = np.percentile(inputs, (15, 50, 85))
    np.testing.assert_allclose([found[p] for p in ("p15", "p50", "p85")], expected, atol=1e-4)


def test_every_network_is_measured_at_each_number_of_updates_and_at_the_end(records):
    found = [(r["seed"], r["step"], r["batch_norm"], (r["scale"], r["lr"], r["activation"])) for r in records]
    assert len(set(found)) == len(found) == 2 * 3 * 2 * 3
    assert {step for _, step, _, _ in found} == {7, 20, 30}


def test_a_run_is_the_same_every_time(records):
    assert learning_rate.run(SMALL) == records


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kill", range(1, 7), ids=lambda n: f"save {n}")
def test_a_run_that_is_killed_goes_on_to_the_same_records(records, tmp_path, monkeypatch, kill):
    path = str(tmp_path / "run.npz")
    saved = []
    write = files.save

    def save(*arguments):
        write(*arguments)
        saved.append(arguments)
        if len(saved) == kill:
            raise Killed

    monkeypatch.setattr(files, "save", save)
    with pytest.raises(Killed):
        learning_rate.run(SMALL, checkpoint=path)
    monkeypatch.undo()
    trained = []
    train = learning_rate_groups.Group.train
    monkeypatch.setattr(
        learning_rate_groups.Group, "train", lambda self, until: trained.append(until - self.step) or train(self, until)
    )
    assert learning_rate.run(SMALL, checkpoint=path) == records
    done = 30 * ((kill - 1) // 3) + (7, 20, 30)[(kill - 1) % 3]
    assert sum(trained) == 4 * (60 - done), "what was done is not done again"


def test_a_run_that_is_killed_while_it_trains_leaves_what_was_saved(records, tmp_path, monkeypatch):
    path = str(tmp_path / "run.npz")

    def told(done, total):
        if done > 100:  # of 240
            raise Killed

    with pytest.raises(Killed):
        learning_rate.run(SMALL, checkpoint=path, on_progress=told)
    assert learning_rate.run(SMALL, checkpoint=path) == records


def test_a_checkpoint_of_other_settings_or_data_is_refused(tmp_path):
    path = str(tmp_path / "run.npz")
    learning_rate.run(DIVERGING, checkpoint=path)
    before = (tmp_path / "run.npz").read_bytes()
    with pytest.raises(ValueError, match=r"same run, but its decay differ.* delete it"):
        learning_rate.run(dataclasses.replace(DIVERGING, decay=0.5), checkpoint=path)
    with pytest.raises(ValueError, match=r"same run, but its data and arrays differ"):
        learning_rate.run(dataclasses.replace(DIVERGING, data="digits"), checkpoint=path)
    (tmp_path / "run.npz").write_bytes(before[:1000])
    with pytest.raises(ValueError, match=r"must be a file written by bnkit, and is damaged"):
        learning_rate.run(DIVERGING, checkpoint=path)


def test_networks_of_nan_are_left_out_and_keep_the_records_that_they_would_have(monkeypatch):
    left_out = []
    take = learning_rate_groups.Group._take
    monkeypatch.setattr(
        learning_rate_groups.Group, "_take", lambda self, cells: left_out.append(len(cells)) or take(self, cells)
    )
    found = learning_rate.run(DIVERGING)
    assert left_out == [2, 2, 1, 1], "both groups go on with one"
    monkeypatch.setattr(learning_rate_groups.Group, "leave_out_the_dead", lambda self: None)
    assert learning_rate.run(DIVERGING) == found
    dead = [r for r in found if r["lr"] == 1e30 and not r["batch_norm"]]
    assert all(r["diverged"] and r["p50"] is None for r in dead)


def test_a_run_whose_networks_are_all_nan_goes_on_from_a_checkpoint(tmp_path):
    settings = dataclasses.replace(DIVERGING, cells=DIVERGING.cells[1:])
    path = str(tmp_path / "run.npz")
    found = learning_rate.run(settings, checkpoint=path)
    assert learning_rate.run(settings, checkpoint=path) == found


def test_progress_counts_the_updates_of_all_groups():
    told = []
    learning_rate.run(DIVERGING, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (60, 60)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "seeds must be"),
        ({"updates": 0}, "updates must be"),
        ({"batch_size": 2000}, "batch_size must be at most the 1000 rows"),
        ({"measured": (31,)}, re.escape("measured must be from 1 to the 30 updates, got (31,)")),
        ({"cells": ((0.1, 0.1, "gelu"),)}, "activation must be"),
        ({"cells": ((0.1, -1.0, "relu"),)}, "lr must be"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        learning_rate.run(dataclasses.replace(SMALL, **change))


def test_the_published_tables_are_beside_the_lessons_setting_alone():
    assert len(PUBLISHED) == 12
    settings = Settings(data="mnist", data_dir="somewhere", seeds=1)
    tables = learning_rate.findings(made(settings, lambda *_: 0.5), settings).tables
    assert [len(table.rows) for table in tables] == [24, 6, 2]
    assert all(row.published is not None for table in tables for row in table.rows)
    other = dataclasses.replace(settings, decay=0.9)
    tables = learning_rate.findings(made(other, lambda *_: 0.5), other).tables
    assert all(row.published is None for table in tables for row in table.rows)


def made(settings, accuracy):
    """Records of the accuracy(cell, batch_norm, step)."""
    return [
        {
            "scale": cell[0],
            "lr": cell[1],
            "activation": cell[2],
            "batch_norm": kind,
            "seed": seed,
            "step": step,
            "accuracy": accuracy(cell, kind, step),
            "diverged": False,
            "p15": -1.0,
            "p50": 0.0,
            "p85": 1.0,
        }
        for seed in range(settings.seeds)
        for step in sorted({*settings.measured, settings.updates})
        for cell in settings.cells
        for kind in (False, True)
    ]


def verdicts(accuracy):
    settings = Settings(data="mnist")
    return [v.verdict for v in learning_rate.findings(made(settings, accuracy), settings).verdicts]


def test_all_claims_hold_where_batch_norm_is_always_ahead():
    assert verdicts(lambda cell, kind, step: 0.95 if kind else 0.5) == ["holds"] * 3


def test_no_claim_holds_where_batch_norm_is_always_behind():
    assert verdicts(lambda cell, kind, step: 0.5 if kind else 0.95) == ["does not hold"] * 3


def test_claims_depend_where_batch_norm_is_ahead_in_some_settings():
    def accuracy(cell, kind, step):
        ahead = kind == (cell[2] == "relu" or cell[1] == 0.01)
        return 0.95 if ahead else 0.5

    assert verdicts(accuracy) == ["depends"] * 3


def test_the_charts_show_every_setting_and_the_papers_percentiles():
    settings = Settings(data="mnist")
    accuracy, percentiles = learning_rate.charts(made(settings, lambda *_: 0.5), settings)
    assert len(accuracy.panels) == 13
    assert [p.title for p in percentiles.panels] == ["plain", "batch norm"]
    assert [line.label for line in percentiles.panels[0].items] == ["85 %", "50 %", "15 %"]
    assert PAPER in settings.cells


def test_a_quick_run_is_drawn():
    pytest.importorskip("matplotlib")
    settings = dataclasses.replace(learning_rate.quick(SMALL), measured=(5,))
    figure = learning_rate.plot(learning_rate.run(settings))
    assert [panel.get_title() for panel in figure.axes] == [
        "relu, W = 0.5, lr 0.1",
        "relu, W = 0.5, lr 1",
        "sigmoid, W = 0.1, lr 0.5",
    ]
