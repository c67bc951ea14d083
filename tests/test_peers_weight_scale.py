"""The experiment in other libraries: the same networks, so nearly the same accuracies, in processes of their own."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from bnkit.peers.weight_scale import prepare

SMALL = ["--data", "synthetic", "--epochs", "2", "--repeats", "2", "--threads", "1"]


def peers(*arguments):
    command = [sys.executable, "-m", "bnkit.peers.weight_scale", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["tutorial", "torch", "jax"])
def test_a_peer_trains_the_networks_that_bnkit_trains(peer, tmp_path):
    if importlib.util.find_spec({"tutorial": "numpy"}.get(peer, peer)) is None:
        pytest.skip(f"{peer} is not installed")
    done = peers("--against", peer, *SMALL, "--json", str(tmp_path / "rows.json"))
    assert (done.returncode, done.stderr) == (0, "")
    own, *others = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert own["process"] == "bnkit"
    assert others
    for row in others:
        assert row["process"] == peer
        assert len(row["seconds"]) == 2
        assert min(row["seconds"]) > 0
        assert row["entry"] in done.stdout
        # float32 sums in another order: the tutorial's own code in float32 lies 0.026 from its float64 at one scale.
        distance = np.abs(np.subtract(row["accuracies"], own["accuracies"]))
        assert distance.max() < 0.05
        assert distance.mean() < 0.005
    assert np.ptp(own["accuracies"]) > 0.1, "the networks of all scales are not the same one"


def test_the_tutorials_code_in_float64_gets_the_very_accuracies():
    specification = {"data": "synthetic", "epochs": 2, "dtype": "float64", "backend": "numpy"}
    own = prepare("bnkit", specification)["bnkit"]()
    tutorial = prepare("tutorial", specification)["tutorial float64"]()
    np.testing.assert_allclose(tutorial, own, atol=1.5e-3)  # one row of 1,000 may lie on a boundary


def test_a_peer_that_nobody_knows_is_refused():
    done = peers("--against", "tutorial,keras")
    assert done.returncode == 2
    assert "--against must be of tutorial, torch, jax, got keras" in done.stderr


def test_the_process_that_measures_imports_no_peer():
    code = "import sys; from bnkit.peers import weight_scale; print({'torch', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
