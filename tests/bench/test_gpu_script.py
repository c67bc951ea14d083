"""bench/gpu.sh on a machine without a GPU: its steps over a python that plays them, its time limits, its one file."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from places import ROOT

import bnkit

SCRIPT = ROOT / "bench" / "gpu.sh"
STEPS = ["device", "kernels", "tests", "memcheck", "racecheck", "float32", "half", "residual", "compiled"]
MEASURED = STEPS[5:]
# Plays the steps: bench writes a file as bnkit does; what the variable FAILS names does not go well.
PLAYER = """#!{python}
import json, os, pathlib, subprocess, sys, time
arguments = sys.argv[1:]
if "gpu_results.py" in arguments[0]:
    sys.exit(subprocess.run([{python!r}, *arguments]).returncode)
name = "tests" if "pytest" in arguments else "device"
if "--json" in arguments:
    path = pathlib.Path(arguments[-1])
    name = path.stem
    settings = {{"command": "bnkit " + " ".join(arguments[2:]), "against": ["torch", name], "cases": [name]}}
    machine = {{"backend": "cupy:0", "copy_gb_per_s": 100.0}}
    rows = [{{"case": name, "share": 0.5}}] * 2
    if name != os.environ.get("FAILS"):
        whole = {{"settings": settings, "versions": {{name: "1"}}, "machine": machine, "records": rows}}
        path.write_text(json.dumps(whole))
print(name, *arguments, "sanitized" if "SANITIZED" in os.environ else "")
if name == os.environ.get("SLOW"):
    time.sleep(60)
sys.exit(3 if name == os.environ.get("FAILS") else 0)
"""

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None or os.name == "nt", reason="for GNU's timeout")


@pytest.fixture
def played(tmp_path):
    """Runs the script over the player, in a copy whose limits are a second each; its exit code, output and folder."""
    (tmp_path / "bin").mkdir()
    player = tmp_path / "bin" / "python"
    player.write_text(PLAYER.format(python=sys.executable))
    sanitizer = tmp_path / "bin" / "compute-sanitizer"
    sanitizer.write_text('#!/bin/sh\nwhile [ "$1" != "$PYTHON" ]; do shift; done\nSANITIZED=1 exec "$@"\n')
    for file in (player, sanitizer):
        file.chmod(0o755)
    root = tmp_path / "copy"
    (root / "bench").mkdir(parents=True)
    shutil.copy(SCRIPT.with_name("gpu_results.py"), root / "bench")
    text = re.sub(r"^(step|measure) (\w+) \d+", r"\1 \2 2", SCRIPT.read_text(), flags=re.MULTILINE)
    (root / "bench" / "gpu.sh").write_text(text.replace("missing=$(", "missing=$(true "))

    def run(**variables):
        environment = {**os.environ, **variables, "PYTHON": str(player)}
        environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
        command = ["bash", root / "bench" / "gpu.sh", tmp_path / "out"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr, tmp_path / "out"

    return run


def summary(output):
    lines = output[output.index("==== Summary") :].splitlines()[1:]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_all_steps_run_and_leave_one_file(played):
    code, output, folder = played()
    assert code == 0, output
    assert list(summary(output)) == STEPS
    assert all(said.startswith("passed after") for said in summary(output).values())
    whole = json.loads((folder / "gpu.json").read_text())
    assert list(whole["steps"]) == STEPS
    assert [row["step"] for row in whole["records"]] == [name for name in MEASURED for _ in range(2)]
    assert {row["copy_gb_per_s"] for row in whole["records"]} == {100.0}
    assert whole["settings"]["against"] == ["torch", *MEASURED]
    assert whole["versions"] == dict.fromkeys(MEASURED, "1")
    assert "sanitized" in (folder / "racecheck.log").read_text()


@pytest.mark.parametrize("name", ["tests", "half"])
def test_a_step_that_fails_is_named_and_the_others_go_on(played, name):
    code, output, folder = played(FAILS=name)
    assert code == 1
    said = summary(output)
    assert said[name].startswith("failed with exit code 3")
    assert said["compiled"].startswith("passed")
    steps = {row["step"] for row in json.loads((folder / "gpu.json").read_text())["records"]}
    assert steps == set(MEASURED) - {name}


def test_a_step_that_takes_too_long_is_ended_and_keeps_its_rows(played):
    code, output, folder = played(SLOW="residual")
    assert code == 1
    assert summary(output)["residual"].startswith("not done in 2 s")
    assert "residual" in {row["step"] for row in json.loads((folder / "gpu.json").read_text())["records"]}


def test_without_a_device_nothing_else_is_tried(played):
    code, output, _ = played(FAILS="device")
    assert code == 1
    assert list(summary(output)) == ["device"]


@pytest.mark.skipif(bnkit.backends()["cupy"].usable, reason="for a machine without a GPU")
def test_on_this_machine_the_script_says_what_is_missing(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", SCRIPT, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "backend 'cupy'" in done.stdout
    assert summary(done.stdout)["device"].startswith("failed")


def test_all_limits_together_leave_it_under_eight_minutes():
    limits = re.findall(r"^ *(?:step|measure) (\w+) (\d+) ", SCRIPT.read_text(), flags=re.MULTILINE)
    assert [name for name, _ in limits] == ["packages", *STEPS]
    assert sum(int(seconds) + 5 for _, seconds in limits) < 8 * 60, "with 5 s for each that SIGINT does not end"
