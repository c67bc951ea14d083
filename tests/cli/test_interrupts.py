"""Ctrl-C during the work and the writing of what it leaves, once and many times over."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import COMMANDS, FILES, after_the_work, check_whole
from commands import workplace as workplace

from bnkit.cli import bench, interrupts, main
from bnkit.lab.experiments import learning_rate


@pytest.fixture
def listening():
    """SIGINT is heard: a shell's background job, which the tests may run in, hands on that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_waits_for_the_files_to_be_written(command, times, monkeypatch, workplace, capfd):
    sync = os.fsync

    def interrupted(handle):
        for _ in range(times):
            press()
        sync(handle)

    after_the_work(monkeypatch, command, lambda: None)
    monkeypatch.setattr(os, "fsync", interrupted)
    assert main(COMMANDS[command].split()) == 130
    folder = workplace / "results"
    assert sorted(path.name for path in folder.iterdir()) == FILES[command]
    for name in FILES[command]:
        check_whole(folder / name)
    assert capfd.readouterr().err.count("one moment") == 1


@pytest.mark.usefixtures("listening")
def test_a_second_interrupt_between_the_work_and_the_writing_loses_nothing(monkeypatch, workplace, capsys):
    shown = bench.progress

    class Pressing:
        """A progress bar that is left a second Ctrl-C after the first."""

        def __init__(self, *args, **options):
            self.bar = shown(*args, **options)

        def __enter__(self):
            return self.bar.__enter__()

        def __exit__(self, *error):
            press()
            self.bar.__exit__(*error)

    monkeypatch.setattr(bench, "progress", Pressing)
    after_the_work(monkeypatch, "bench", press)
    assert main(COMMANDS["bench"].split()) == 130
    for name in FILES["bench"]:
        check_whole(workplace / "results" / name)
    assert capsys.readouterr().err == "bnkit: interrupted\n"


@pytest.mark.usefixtures("listening")
def test_another_interrupt_ends_work_that_the_first_did_not(monkeypatch):
    monkeypatch.setattr(interrupts, "_ONE_WISH", 0.05)
    raised = []
    with interrupts.held_on_demand():
        for wait in (0, 0, 0.1):
            time.sleep(wait)
            try:
                press()
            except KeyboardInterrupt:  # somebody swallows it
                raised.append(wait)
    assert raised == [0, 0.1]


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.held_on_demand():
            press()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process alone")
@pytest.mark.usefixtures("listening")
def test_an_experiment_in_two_processes_ends_soon_and_goes_on_to_the_same_records(workplace):
    settings = learning_rate.Settings(backend="numpy", seeds=1, epochs=80, measured=(500,))
    (workplace / "asked.json").write_text(json.dumps({"settings": dataclasses.asdict(settings), "records": []}))
    command = [sys.executable, "-m", "bnkit", "run", "learning-rate", "--from", "asked.json"]
    environment = {**os.environ, "BNKIT_NUM_THREADS": "2"}
    kept = workplace / "learning_rate.checkpoint"
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with first:
        deadline = time.monotonic() + 120
        while not kept.exists():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pressed = time.monotonic()
        first.send_signal(signal.SIGINT)
        assert first.wait(120) == 130
        waited = time.monotonic() - pressed
        said = first.stderr.read()  # first lines of progress, where it takes long
    kept_parts = (
        "kept . finished parts? and . unfinished parts?; the same command goes on from learning_rate.checkpoint"
    )
    assert re.search(f"bnkit: {kept_parts}\nbnkit: interrupted\n$", said)
    assert list(workplace.glob("learning_rate.checkpoint.part-*")), "the parts under way are saved at the interruption"
    done = json.loads(kept.read_text())["done"]
    assert 1 <= len(done) < 4
    assert waited < 2, "the end of the processes, and Python's own"
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "going on from" in found.stdout
    assert json.loads((workplace / "learning_rate.json").read_text())["records"] == learning_rate.run(settings)
    assert not list(workplace.glob("*.checkpoint*"))
