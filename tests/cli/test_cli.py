"""The command line, through the real console script."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bnkit

SCRIPT = shutil.which("bnkit", path=str(Path(sys.executable).parent))


def bnkit_command(*arguments, cwd, **environment):
    assert SCRIPT is not None, "the console script bnkit must be installed beside this Python"
    env = {k: v for k, v in os.environ.items() if not k.startswith("BNKIT_")} | {"COLUMNS": "200"} | environment
    return subprocess.run([SCRIPT, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_info_shows_each_backend_and_the_compiled_kernels(tmp_path):
    result = bnkit_command("info", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("numpy", "cupy", "usable", "device", "threads", "SIMD level", "compiled kernels", "default backend"):
        assert word in result.stdout
    assert np.__version__ in result.stdout


def test_info_as_json_agrees_with_the_library(tmp_path):
    described = json.loads(bnkit_command("info", "--json", cwd=tmp_path).stdout)
    known = bnkit.backends()
    assert set(described["backends"]) == set(known) - {"strict", "cuda_host"}, "the tests alone register these"
    assert described["backends"]["numpy"]["usable"] is True
    assert described["backends"]["numpy"]["libraries"] == {"numpy": np.__version__}
    assert described["default"] == bnkit.get_backend("auto").key
    assert described["backends"]["cupy"]["usable"] == known["cupy"].usable


def test_info_still_works_when_the_chosen_backend_cannot_run(tmp_path):
    result = bnkit_command("info", cwd=tmp_path, BNKIT_BACKEND="no-such")
    assert result.returncode == 0
    assert "no backend is named 'no-such'" in result.stdout


def test_the_remedy_is_printed_with_its_brackets(tmp_path):
    if bnkit.backends()["cupy"].usable:
        pytest.skip("CuPy is usable here, so there is no remedy to print")
    reason = bnkit.backends()["cupy"].reason
    printed = "".join(bnkit_command("info", cwd=tmp_path, COLUMNS="400").stdout.split())
    assert "".join(reason.split()) in printed


def test_a_quick_weight_scale_writes_its_figure_and_records(tmp_path):
    result = bnkit_command("run", "weight-scale", "--quick", "--out", "results", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stdout + result.stderr
    assert (tmp_path / "results" / "weight_scale_quick.png").read_bytes().startswith(b"\x89PNG")
    file = json.loads((tmp_path / "results" / "weight_scale_quick.json").read_text())
    assert set(file) == {"experiment", "format", "settings", "versions", "machine", "records"}
    assert file["settings"]["data"] == "digits"
    assert file["versions"]["numpy"] == np.__version__
    assert file["machine"]["backend"] == "numpy"
    expected = len(file["settings"]["scales"]) * 2 * file["settings"]["seeds"] * file["settings"]["epochs"]
    assert len(file["records"]) == expected
    assert set(file["records"][0]) == {"scale", "batch_norm", "seed", "epoch", "accuracy", "diverged"}
    assert "diverged" in result.stdout
    assert "0.0251" in result.stdout
    written = ["weight_scale_quick.json", "weight_scale_quick.png"]
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == written


def test_train_saves_a_model_that_reproduces_the_printed_accuracy(tmp_path):
    options = ("--epochs", "4", "--optimizer", "adam", "--lr", "0.01", "--dropout", "0.1", "--weight-decay", "1e-4")
    result = bnkit_command("train", "--hidden", "30,20", *options, "--out", "net.npz", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    model = bnkit.MLP.load(tmp_path / "net.npz", backend="numpy")
    data = bnkit.data.load("digits")
    accuracy = float(model.accuracy(data.x_test, data.t_test))
    assert f"test accuracy: {accuracy:.4f}" in result.stdout
    assert accuracy > 0.8  # ten classes; this small network reaches about 0.95
    assert model.config["sizes"] == [64, 30, 20, 10]


def test_train_takes_every_option_of_the_model(tmp_path):
    options = (
        "--data synthetic --hidden 8 --activation tanh --decay none --eps 1e-3 --correction 0 --no-affine --ghost 50 "
        "--no-bias --init 0.1,he --dropout 0.2 --weight-decay 0.01 --replicas 2 --optimizer momentum --lr 0.1,0.01 "
        "--epochs 2 --batch-size 100 --seed 3,4 --patience 5 --checkpoint c.bnkit --dtype float64 --backend numpy"
    )
    result = bnkit_command("train", *options.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    config = bnkit.MLP.load(tmp_path / "model.npz", backend="numpy").config
    norm = {"decay": None, "eps": 1e-3, "correction": 0, "affine": False, "track": True, "ghost": 50}
    expected = {"activation": "tanh", "bias": False, "init": [0.1, "he"], "dropout": 0.2, "weight_decay": 0.01}
    expected |= {"replicas": 2, "seed": [3, 4], "dtype": "float64", "batch_norm": norm, "sizes": [64, 8, 10]}
    assert config == expected
    assert (tmp_path / "c.bnkit").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_an_interrupted_run_exits_with_130_and_leaves_no_file(tmp_path):
    assert SCRIPT is not None
    with subprocess.Popen(
        [SCRIPT, "run", "weight-scale", "--epochs", "2000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell's background job, which the tests may run in, hands on that SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the settings: the work has begun
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "no-such"], 2, "No such command"),
        (["run", "weight-scale", "--seeds", "0"], 2, "--seeds"),
        (["run", "weight-scale", "--data", "cifar"], 2, "mnist, digits, synthetic"),
        (["train", "--hidden", "10,x"], 2, "--hidden"),
        (["train", "--dropout", "1"], 2, "dropout must be"),
        (["train", "--decay", "1.5"], 2, "decay must be a number from 0 to 1"),
        (["train", "--init", "0.1,0.2"], 2, "replicas=2"),
        (["train", "--batch-size", "100000"], 2, "batch_size must be at most"),
        (["train", "--out", "."], 1, "must be a file or not exist"),
        (["run", "weight-scale", "--backend", "no-such"], 1, "no backend is named 'no-such'"),
        (["run", "weight-scale", "--data", "mnist", "--data-dir", "nowhere"], 1, "BNKIT_DATA_DIR"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(tmp_path, arguments, code, said):
    result = bnkit_command(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1, "one line on stderr"
    assert list(tmp_path.glob("*.npz")) == []


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = bnkit_command("run", "weight-scale", "--out", "file/below", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "cannot write to" in result.stderr


def test_debug_shows_the_traceback(tmp_path):
    result = bnkit_command("train", "--backend", "no-such", "--debug", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_python_m_bnkit_is_the_same_command(tmp_path):
    result = subprocess.run([sys.executable, "-m", "bnkit", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"bnkit {bnkit.__version__}\n")
