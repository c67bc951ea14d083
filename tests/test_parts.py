"""Parts of an experiment, some at the same time: order, progress, what an error and an interruption leave."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import bnkit
from bnkit.experiments import activations, batch_size, learning_rate, overfitting, parts, weight_scale
from bnkit.experiments.parts import Part

SETTINGS = weight_scale.Settings()
LONG = 60.0  # seconds that nothing here may take
UPDATES = 5
MUCH = 2**40  # multiplications, worth a thread
LITTLE = {"data": "synthetic", "backend": "numpy", "seeds": 2, "epochs": 2, "hidden": (8, 6)}
EXPERIMENTS = {
    "activations": (activations, {"rows": 60, "batch_size": 20, "bins": 5}),
    "batch-size": (batch_size, {"rows": 64, "batches": (2, 8, 32), "rank_batches": (8,), "draws": 20}),
    "learning-rate": (learning_rate, {"measured": (7, 20)}),
    "overfitting": (overfitting, {"rows": 60, "batch_size": 20, "every": 1, "search_batches": (20, 10)}),
}


@pytest.fixture
def backend(monkeypatch):
    """The NumPy backend, doing two things at the same time."""
    backend = bnkit.get_backend("numpy")
    monkeypatch.setattr(backend, "threads", 2)
    return backend


def part(name, *, effort=MUCH, before=lambda told: None):
    """A part that calls `before`, then tells of its updates and returns one record."""

    def work(told):
        before(told)
        for n in range(UPDATES):
            told(n + 1)
        return [{"name": name}]

    return Part(name, UPDATES, effort, work)


def for_ever(told):
    """What a part does that only another thread ends."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        told(1)
        time.sleep(0.001)


def test_records_come_in_the_order_of_the_parts_whatever_order_they_end_in(backend):
    first_may_end = threading.Event()
    listed = [
        part("slow", before=lambda told: first_may_end.wait(LONG)),
        part("quick"),
        part("last", before=lambda told: first_may_end.set()),
    ]
    assert [r["name"] for r in parts.run(listed, SETTINGS, backend)] == ["slow", "quick", "last"]


def test_two_parts_are_worked_on_at_the_same_time(backend):
    meeting = threading.Barrier(2, timeout=LONG)
    parts.run([part(name, before=lambda told: meeting.wait()) for name in "ab"], SETTINGS, backend)
    assert not meeting.broken


def test_a_backend_with_one_thread_does_the_parts_of_greatest_effort_first(backend, monkeypatch):
    monkeypatch.setattr(backend, "threads", 1)
    begun = []
    listed = [part(n, effort=e, before=lambda told, n=n: begun.append(n)) for n, e in (("a", 1), ("b", 3), ("c", 2))]
    assert [r["name"] for r in parts.run(listed, SETTINGS, backend)] == ["a", "b", "c"]
    assert begun == ["b", "c", "a"]


def test_parts_of_small_updates_keep_to_one_thread(backend):
    threads = []
    listed = [part(n, effort=1000, before=lambda told: threads.append(threading.current_thread())) for n in "abcd"]
    parts.run(listed, SETTINGS, backend)
    assert threads == [threading.main_thread()] * 4


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_has_the_same_records_with_any_threads(experiment, backend, monkeypatch):
    monkeypatch.setattr(parts, "_WORTH_A_THREAD", 0)
    module, changes = EXPERIMENTS[experiment]
    settings, found = module.Settings(**LITTLE, **changes), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(backend, "threads", threads)
        found.append(module.run(settings))
    assert found[0] == found[1] == found[2]


def test_progress_never_goes_back_and_ends_with_all_updates(backend):
    told = []
    listed = [*(part(name) for name in "abcde"), Part("silent", UPDATES, 1, lambda told: [])]
    parts.run(listed, SETTINGS, backend, on_progress=lambda *n: told.append(n))
    assert told[0] == (0, 6 * UPDATES)
    assert told[-1] == (6 * UPDATES, 6 * UPDATES)
    assert told == sorted(told)


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", [0, 1])
def test_an_error_ends_the_other_parts_and_leaves_what_was_done(backend, tmp_path, error, place):
    done = threading.Event()

    def fails(told):
        assert done.wait(LONG)
        raise error

    slow = [part("fails", before=fails), part("for ever", before=for_ever)]
    listed = [part("done", effort=2 * MUCH), *(slow if place == 0 else slow[::-1])]

    def told(count, total):
        if count >= UPDATES and (tmp_path / "c").exists():
            done.set()

    start = time.monotonic()
    with pytest.raises(type(error)):
        parts.run(listed, SETTINGS, backend, checkpoint=tmp_path / "c", on_progress=told)
    assert time.monotonic() - start < LONG / 4
    assert json.loads((tmp_path / "c").read_text())["done"] == {"done": [{"name": "done"}]}


def test_a_part_that_was_past_its_last_update_when_another_failed_is_kept_and_none_is_begun(backend, tmp_path):
    meeting, failed = threading.Barrier(2, timeout=LONG), threading.Event()

    def fails(told):
        meeting.wait()
        failed.set()
        raise ValueError("wrong")

    def work(told):
        meeting.wait()
        assert failed.wait(LONG)
        time.sleep(0.05)  # the other one's error is known
        return [{"name": "measured"}]

    begun = []
    after = part("next", effort=MUCH // 2, before=lambda told: begun.append("next"))
    listed = [part("fails", before=fails), Part("measured", UPDATES, MUCH, work), after]
    with pytest.raises(ValueError, match="wrong"):
        parts.run(listed, SETTINGS, backend, checkpoint=tmp_path / "c")
    assert json.loads((tmp_path / "c").read_text())["done"] == {"measured": [{"name": "measured"}]}
    assert begun == []


def test_progress_is_told_by_one_thread_at_a_time(backend):
    telling = threading.Lock()

    def on_progress(done, total):
        assert telling.acquire(blocking=False)
        time.sleep(0.001)  # the other thread may come
        telling.release()

    meeting = threading.Barrier(2, timeout=LONG)
    listed = [part(name, before=lambda told: meeting.wait()) for name in "abcd"]
    parts.run(listed, SETTINGS, backend, on_progress=on_progress)


def test_what_is_done_is_not_done_again(backend, tmp_path):
    first = parts.run([part("a")], SETTINGS, backend, checkpoint=tmp_path / "c")

    def never(told):
        raise AssertionError("done before")

    told, listed = [], [part("a", before=never), part("b")]
    found = parts.run(listed, SETTINGS, backend, checkpoint=tmp_path / "c", on_progress=lambda *n: told.append(n))
    assert found == [*first, {"name": "b"}]
    assert told[0] == (UPDATES, 2 * UPDATES)


def test_a_part_of_the_name_of_another_is_refused(backend):
    with pytest.raises(ValueError, match="settings must name each case once, got 'a' more than once"):
        parts.run([part("a"), part("b"), part("a")], SETTINGS, backend)


@pytest.mark.parametrize("done", [[], None, 3, {"a": []}, {"a": 3}])
def test_a_checkpoint_whose_records_are_none_is_damaged(backend, tmp_path, done):
    path = tmp_path / "c"
    parts.run([part("a")], SETTINGS, backend, checkpoint=path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"done": done}))
    with pytest.raises(ValueError, match="c must be a checkpoint of an experiment, and is damaged"):
        parts.run([part("a")], SETTINGS, backend, checkpoint=path)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("settings", {"settings": weight_scale.Settings(seeds=4)}),
        ("data", {"data": [np.ones(3, np.float32)]}),
        ("versions", {"versions": {"numpy": "0.1"}}),
        ("machine", {"machine": {"simd": "another"}}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_stays(backend, tmp_path, monkeypatch, what, changes):
    path, data = tmp_path / "c", [np.zeros(3, np.float32)]
    parts.run([part("a")], SETTINGS, backend, data=data, checkpoint=path)
    before = path.read_bytes()
    for name in ("versions", "machine"):
        if name in changes:
            monkeypatch.setattr(parts, name, lambda backend, found=changes[name]: found)
    settings, data = changes.get("settings", SETTINGS), changes.get("data", data)
    with pytest.raises(ValueError, match=f"same settings, versions, machine, data, but its {what} differ; delete it"):
        parts.run([part("a")], settings, backend, data=data, checkpoint=path)
    assert path.read_bytes() == before


def test_a_run_goes_on_with_other_threads(backend, tmp_path, monkeypatch):
    found = parts.run([part("a")], SETTINGS, backend, checkpoint=tmp_path / "c")
    monkeypatch.setattr(backend, "threads", 7)
    assert parts.run([part("a", before=for_ever)], SETTINGS, backend, checkpoint=tmp_path / "c") == found


@pytest.mark.skipif(sys.platform == "win32", reason="a process is not sent a Ctrl-C there")
@pytest.mark.parametrize("alone", [True, False])
def test_ctrl_c_ends_a_run_at_once_whichever_threads_work(alone, tmp_path):
    """`alone`: the main thread has no part left, and waits for the other one's."""
    script = textwrap.dedent(f"""
        import signal, sys, threading
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import bnkit
        from bnkit.experiments import parts
        from test_parts import SETTINGS, for_ever, part
        signal.signal(signal.SIGINT, signal.default_int_handler)
        backend = bnkit.get_backend("numpy")
        backend.threads = 2
        both, main = threading.Barrier(2, timeout={LONG}), threading.main_thread()
        def begin(told):
            if both.wait() == 0:
                print("at work", flush=True)
            if {alone} and threading.current_thread() is main:
                return
            for_ever(told)
        try:
            parts.run([part(n, before=begin) for n in "ab"], SETTINGS, backend)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "at work\n"
        time.sleep(0.2)
        start = time.monotonic()
        child.send_signal(signal.SIGINT)
        try:
            told, _ = child.communicate(timeout=LONG)
        finally:
            child.kill()
    assert told.splitlines()[-1] == "interrupted"
    assert time.monotonic() - start < LONG / 4
