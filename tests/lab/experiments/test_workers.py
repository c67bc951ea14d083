"""Parts of an experiment in processes: what they share, how an error, an interruption and a death end them."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import process_parts
import pytest
from places import HELPERS
from process_parts import LONG, UPDATES, Settings, wait_for

import bnkit
from bnkit.lab.experiments import activations, learning_rate, runner, training, weight_scale
from bnkit.lab.experiments.plan import Part, Plan

posix = pytest.mark.skipif(os.name == "nt", reason="a process is not sent a Ctrl-C there")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The parts of these names in two processes."""
    monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", 2)
    monkeypatch.setattr(runner, "_WORTH_PROCESSES", 0)

    def run(*names, efforts=(), **options):
        start = time.monotonic()
        try:
            return runner.run(process_parts.plan, settings(tmp_path, *names, efforts=efforts), **options)
        finally:
            assert time.monotonic() - start < LONG / 2

    return run


def settings(folder, *names, efforts=()):
    return Settings(folder=str(folder), names=names, efforts=efforts)


def is_alive(process):
    """Whether a process runs; not one that is dead and not yet waited for, as a container may leave it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_the_end_of(folder, *names):
    end = time.monotonic() + LONG / 2
    if os.name == "nt":  # os.kill would send a Ctrl-C there, whatever the number
        return
    for name in names:
        process = int((folder / f"{name}.begun").read_text())
        while is_alive(process):
            assert time.monotonic() < end, f"the process of {name!r} lives on"
            time.sleep(0.01)


def test_records_come_in_the_order_of_the_parts_whatever_order_they_end_in(run):
    names = ["after last", "quick", "last"]
    assert [r["name"] for r in run(*names)] == names


def test_two_parts_are_worked_on_at_the_same_time_in_processes_that_go_on_to_others(run):
    found = run("after c", "b", "c", "d")  # the first one waits, so another process does the others
    processes = {r["process"] for r in found}
    assert len(processes) == 2
    assert found[1]["process"] == found[2]["process"] != found[0]["process"]
    assert os.getpid() not in processes


def test_those_of_greatest_effort_come_first(run, tmp_path):
    run("c", "after c", "b", "a", efforts=(1, 9, 2, 8))
    begun = sorted("abc", key=lambda name: (tmp_path / f"{name}.begun").stat().st_mtime_ns)
    assert begun == ["a", "b", "c"]


def test_the_backend_is_the_one_that_was_chosen_here(run):
    with bnkit.use_backend("numpy"):
        assert {r["backend"] for r in run("a", "b")} == {"numpy"}


def test_progress_never_goes_back_and_ends_with_all_updates(run):
    told = []
    run("a", "after a", "c", on_progress=lambda *n: told.append(n))
    assert told[0] == (0, 3 * UPDATES)
    assert told[-1] == (3 * UPDATES, 3 * UPDATES)
    assert told == sorted(told)


def test_progress_is_told_while_a_part_is_under_way(run, tmp_path):
    def on_progress(done, total):
        if done % UPDATES == 1:  # what "for ever" tells
            (tmp_path / "may fail").touch()

    with pytest.raises(ValueError, match="wrong"):
        run("for ever", "fails", on_progress=on_progress)


def test_what_is_printed_in_a_process_goes_to_stderr(run, capfd):
    assert [r["name"] for r in run("prints", "quick")] == ["prints", "quick"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("names", [("fails", "for ever"), ("for ever", "fails")])
def test_an_error_ends_the_other_parts_and_leaves_what_was_done(run, tmp_path, names):
    def on_progress(done, total):
        if (tmp_path / "c").exists() and (tmp_path / "for ever.begun").exists():
            (tmp_path / "may fail").touch()

    with pytest.raises(ValueError, match="wrong") as raised:
        run("done", *names, "next", checkpoint=tmp_path / "c", on_progress=on_progress)
    assert "in fails" in raised.value.__notes__[0], "where it was raised"
    done = json.loads((tmp_path / "c").read_text())["done"]
    assert list(done) == ["done"]
    assert not (tmp_path / "next.begun").exists()
    wait_for_the_end_of(tmp_path, *names)


def test_a_run_goes_on_in_processes_after_those_that_were_done(run, tmp_path):
    with pytest.raises(ValueError, match="not yet"):
        run("a", "after a", "later", checkpoint=tmp_path / "c")
    kept = json.loads((tmp_path / "c").read_text())["done"]
    assert kept
    told = []
    found = run("a", "after a", "later", checkpoint=tmp_path / "c", on_progress=lambda *n: told.append(n))
    assert told[0] == (UPDATES * len(kept), 3 * UPDATES)
    assert all([record] == kept.get(record["name"], [record]) for record in found)


def test_an_error_that_pickle_cannot_carry_is_told_by_its_text(run):
    with pytest.raises(RuntimeError, match="Awkward: number 3") as raised:
        run("awkward", "quick")
    assert "in awkward" in raised.value.__notes__[0], "where it was raised"


def test_an_error_of_an_index_is_no_end_of_the_parts(run):
    with pytest.raises(IndexError, match="index 10 is out of bounds"):
        run("quick", "index", "next")


def test_a_process_without_memory_is_told_with_the_remedy(run):
    with pytest.raises(RuntimeError, match="of 'memory' had no memory left; with BNKIT_NUM_THREADS=1"):
        run("quick", "memory")


def test_what_is_printed_when_python_starts_does_not_disturb_a_process(run, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('welcome', flush=True)")
    monkeypatch.syspath_prepend(tmp_path)
    assert [r["name"] for r in run("a", "b")] == ["a", "b"]


def test_a_backend_that_another_process_would_not_find_keeps_to_this_one(run):
    numpy = type(bnkit.get_backend("numpy"))

    class Mine(numpy):
        """As one that was registered in this process."""

    mine = Mine()
    mine.threads = 2
    found = runner.run(lambda settings: Plan(mine, (), [quick_part(name) for name in "ab"]), Settings())
    assert [r["process"] for r in found] == [os.getpid()] * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: ThreadPoolExecutor(2),
        lambda: ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")),
    ],
    ids=["threads", "processes"],
)
def test_any_executor_runs_the_parts_and_resumes_them(make, tmp_path):
    small = learning_rate.Settings(data="synthetic", backend="numpy", seeds=1, epochs=2, hidden=(8, 6), measured=(7,))
    expected = learning_rate.run(small)
    with make() as executor:
        assert learning_rate.run(small, executor=executor) == expected
        with pytest.raises(KeyError, match="mine"):
            learning_rate.run(small, executor=executor, checkpoint=tmp_path / "c", on_progress=raise_after_a_part)
        assert len(json.loads((tmp_path / "c").read_text())["done"]) >= 1
        assert learning_rate.run(small, executor=executor, checkpoint=tmp_path / "c") == expected


def raise_after_a_part(done, total):
    if done >= 32:
        raise KeyError("mine")


def test_without_loky_a_long_run_has_threads_of_this_process(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "loky", None)
    found = run("after b", "b")  # the first one waits, so another thread does the second
    assert [(r["name"], r["process"]) for r in found] == [("after b", os.getpid()), ("b", os.getpid())]


def quick_part(name):
    return Part(name, 1, 1, lambda session: [{"process": os.getpid()}])


def test_progress_is_told_by_one_thread_at_a_time(run):
    telling, told = threading.Lock(), []

    def on_progress(done, total):
        told.append(done)
        assert telling.acquire(blocking=False)
        time.sleep(0.05)  # the other thread comes meanwhile
        telling.release()

    run("ticks a", "ticks b", "ticks c", "ticks d", on_progress=on_progress)
    assert len(told) > 4 + 1, "also while they are under way"


def test_an_error_of_the_progress_ends_the_processes(run, tmp_path):
    def on_progress(done, total):
        if (tmp_path / "for ever.begun").exists():
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run("for ever", "for ever and ever", on_progress=on_progress)
    wait_for_the_end_of(tmp_path, "for ever")


def test_a_process_that_dies_is_named_with_its_exit_code_and_the_remedy(run, tmp_path, capfd):
    def on_progress(done, total):
        if (tmp_path / "for ever.begun").exists():
            (tmp_path / "may fail").touch()

    told = r"a process of 'dies' or 'for ever' died: [\s\S]*EXIT\(3\)[\s\S]*; with BNKIT_NUM_THREADS=1"
    with pytest.raises(RuntimeError, match=told):
        run("dies", "for ever", on_progress=on_progress)
    assert "no memory left" in capfd.readouterr().err, "what it said"
    wait_for_the_end_of(tmp_path, "for ever")


SCRIPT = """
    import signal, sys
    sys.path.insert(0, {tests!r})
    import bnkit, process_parts
    from bnkit.lab.experiments import runner
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner._WORTH_PROCESSES = 0
    bnkit.get_backend("numpy").threads = 2
    try:
        names = "for ever", "for ever and ever"
        runner.run(process_parts.plan, process_parts.Settings(folder={folder!r}, names=names))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@posix
@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "alone"])
def test_no_process_outlives_an_interruption_or_the_end_of_its_parent(ended, group, tmp_path):
    script = textwrap.dedent(SCRIPT.format(tests=str(HELPERS), folder=str(tmp_path)))
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    with child:
        try:
            for name in ("for ever", "for ever and ever"):
                wait_for(tmp_path / f"{name}.begun")
            (os.killpg if group else os.kill)(child.pid, ended)
            told, _ = child.communicate(timeout=LONG / 2)
        finally:
            child.kill()
    assert told == ("interrupted\n" if ended == signal.SIGINT else "")
    wait_for_the_end_of(tmp_path, "for ever", "for ever and ever")


KILLED = """
    import sys
    from bnkit.lab.experiments import runner, {module}
    import bnkit
    runner.SAVED_EVERY = 0.0
    runner._WORTH_PROCESSES = 0
    bnkit.get_backend("numpy").threads = {threads}
    {module}.run({module}.{settings}, checkpoint={path!r})
"""


@posix
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("module", [weight_scale, activations])
def test_a_run_that_was_killed_inside_a_part_resumes_there_to_the_same_records(module, threads, tmp_path, monkeypatch):
    settings = module.Settings(data="synthetic", backend="numpy", seeds=1, epochs=30, hidden=(16, 16))
    path, folder = tmp_path / "c", module.__name__.rpartition(".")[2]
    script = textwrap.dedent(KILLED.format(module=folder, settings=settings, path=str(path), threads=threads))
    child = subprocess.Popen([sys.executable, "-c", script])
    with child:
        end = time.monotonic() + LONG
        while len(list(tmp_path.glob("c.part-*"))) < threads:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        child.kill()
    monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", 1)
    restored = []
    restore = training.Course.restore
    monkeypatch.setattr(training.Course, "restore", lambda *args: restored.append(restore(*args)) or restored[-1])
    found = module.run(settings, checkpoint=path)
    assert restored
    assert all(updates > 0 for _, updates in restored)
    assert found == module.run(settings)
    assert list(tmp_path.glob("c*")) == [path], "the state of a finished part is removed"
