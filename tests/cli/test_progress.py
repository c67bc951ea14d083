"""The progress of long commands: lines on stderr where it is no terminal, and a bar where it is one."""

import io
import re
import sys
import threading
import time

import pytest
from commands import COMMANDS, after_the_work
from commands import workplace as workplace
from rich.console import Console

from bnkit.cli import main, progress

LINE = r"bnkit: (\d+)(?: of (\d+))? (\w+) in 0:00:\d\d \((.*)\)"
LAST = {"bench": ("rows", "100x100 float32 train"), "run": ("updates", "weight-scale"), "train": ("epochs", "loss ")}


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.02)


def lines(text):
    return [match.groups() for line in text.splitlines() if (match := re.fullmatch(LINE, line))]


@pytest.mark.usefixtures("often", "workplace")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_long_command_prints_its_progress_on_stderr_now_and_then(command, monkeypatch, capsys):
    after_the_work(monkeypatch, command, lambda: time.sleep(0.3))
    assert main(COMMANDS[command].split()) == 0
    printed = capsys.readouterr()
    found = lines(printed.err)
    assert len(found) >= 3
    assert len(printed.err.splitlines()) == len(found)
    unit, text = LAST[command]
    assert found[-1][2] == unit
    assert found[-1][3].startswith(text)
    if command == "train":
        assert found[-1][:2] == ("2", "2")
    assert "bnkit:" not in printed.out


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_ends_within_the_interval_prints_no_progress(command, capsys):
    options = ["--seeds", "1", "--epochs", "1"] if command == "run" else []
    assert main([*COMMANDS[command].split(), *options]) == 0
    assert capsys.readouterr().err == ""


def test_a_line_says_what_was_told_last(often, capsys):
    with progress.progress("first", "steps") as tell:
        time.sleep(0.2)
        tell(1200, 4000)
        time.sleep(0.2)
        tell(1300, text="second")
        time.sleep(0.2)
    found = [line.split(" in ")[0] + line[line.index("(") :] for line in capsys.readouterr().err.splitlines()]
    expected = [
        "bnkit: 0 steps(first)", "bnkit: 1,200 of 4,000 steps(first)", "bnkit: 1,300 of 4,000 steps(second)"
    ]  # fmt: skip
    assert list(dict.fromkeys(found)) == expected


def test_lines_are_apart_by_the_interval(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.2)
    begun = time.monotonic()
    with progress.progress("work", "steps", total=100) as tell:
        for done in range(50):
            tell(done)
            time.sleep(0.01)
    elapsed = time.monotonic() - begun
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= elapsed / 0.2


def test_no_line_is_printed_after_the_work(often, capsys):
    before = threading.active_count()
    with pytest.raises(KeyError), progress.progress("work", "steps"):
        raise KeyError
    assert threading.active_count() == before
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_lines_that_nobody_reads_do_not_end_the_work(often, monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    with progress.progress("work", "steps") as tell:
        time.sleep(0.1)
        tell(1)


def test_a_terminal_gets_a_bar_and_no_lines(often, capsys):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress.progress("work", "steps", total=4, console=terminal) as tell:
        tell(3, text="more")
        time.sleep(0.2)
    shown = terminal.file.getvalue()
    assert "3/4" in shown
    assert "more" in shown
    assert capsys.readouterr().err == ""
