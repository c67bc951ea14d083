"""Ctrl-C while the command line is being imported."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from commands import SCRIPT

from bnkit.cli import info, main

IMPORTING = """
    import os, time
    os.write(1, b"importing\\n")
    while True:
        time.sleep(0.01)
"""
SWALLOWING = """
    import os, time
    os.write(1, b"importing\\n")
    for _ in range(3000):
        try:
            time.sleep(0.01)
        except BaseException:
            pass
"""
ENTRIES = {"script": [SCRIPT], "module": [sys.executable, "-m", "bnkit"]}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("source", [IMPORTING, SWALLOWING], ids=["plain", "swallowing"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_interrupt_while_it_starts_is_one_line(entry, source, tmp_path):
    (tmp_path / "typer.py").write_text(textwrap.dedent(source))
    with subprocess.Popen(
        [*ENTRIES[entry], "info"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"bnkit: interrupted\n")


def test_an_interrupt_that_became_another_error_is_one_line(monkeypatch, capsys):
    def backends():
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()  # as Python 3.11 has it

    monkeypatch.setattr(info, "backends", backends)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "bnkit: interrupted\n"
