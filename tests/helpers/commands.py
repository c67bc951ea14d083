"""Commands that write results, and a folder for them: for the tests of what they leave."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import bnkit
from bnkit.cli import bench, train
from bnkit.lab.benchmark import measure
from bnkit.lab.experiments.experiment import Experiment

SCRIPT = shutil.which("bnkit", path=str(Path(sys.executable).parent))

# Each writes into the folder `results`, and these files.
COMMANDS = {
    "bench": "bench --cases 100x100 --ops train --seconds 0.002 --json results/a.json --plot results/a.png",
    "run": "run weight-scale --data synthetic --out results",
    "train": "train --data synthetic --hidden 8 --epochs 2 --out results/net.npz",
}
FILES = {"bench": ["a.json", "a.png"], "run": ["weight_scale.json", "weight_scale.png"], "train": ["net.npz"]}


@pytest.fixture
def workplace(monkeypatch, tmp_path):
    """The current folder is an empty one, temporary folders are made in `elsewhere` beside it; a copy takes no time."""
    whole = measure.copy_bandwidth
    monkeypatch.setattr(measure, "copy_bandwidth", lambda backend: whole(backend, nbytes=2**16, seconds=0))
    for name in ("work", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    return tmp_path / "work"


def check_whole(path):
    """The file is there to its end."""
    if path.suffix == ".json":
        assert json.loads(path.read_text())["records"]
    elif path.suffix == ".png":
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content.endswith(b"IEND\xaeB`\x82")
    else:
        assert bnkit.MLP.load(path, backend="numpy").config["sizes"] == [64, 8, 10]


def after_the_work(monkeypatch, command, action):
    """Have `action` done once the command has computed what it will write; without training the experiment."""
    if command == "bench":
        plan_run = bench.benchmark.run

        def rows(*args, **kwargs):
            yield from plan_run(*args, **kwargs)
            action()

        monkeypatch.setattr(bench.benchmark, "run", rows)
    elif command == "run":
        row = {"scale": 1.0, "seed": 0, "epoch": 1, "accuracy": 0.5, "diverged": False}

        def records(*args, **kwargs):
            action()
            return [row | {"batch_norm": kind} for kind in (False, True)]

        monkeypatch.setattr(Experiment, "run", records)
    else:
        fit = train.fit

        def fitted(*args, **kwargs):
            result = fit(*args, **kwargs)
            action()
            return result

        monkeypatch.setattr(train, "fit", fitted)
