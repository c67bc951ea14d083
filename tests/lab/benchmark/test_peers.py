"""Peers: their processes and protocol, with one that misbehaves, and what each of the real ones can be asked for."""

import contextlib
import subprocess
import sys
import time

import numpy as np
import pytest
from places import HELPERS

import bnkit
from bnkit.lab.benchmark import measure, peers
from bnkit.lab.benchmark.peers.batch_norm_tutorial import calls as tutorial_calls

FAKE = HELPERS / "fake_peer.py"
AGREEMENT = HELPERS / "peer_agreement.py"
CASES = [measure.Case((10, 6), 1), measure.Case((3, 4, 2, 2), 1), measure.Case((3, 2, 2, 4), -1)]
CASES += [measure.Case((2, 10, 6), (0, 2))]


def fake(manner, **options):
    return peers.Peer("fake", [sys.executable, str(FAKE), manner], 1, **options)


def start(name):
    try:
        peers.check_installed(name)
    except ImportError as error:
        pytest.skip(str(error))
    return contextlib.closing(peers.Peer(name, peers.command(name, 1), 1))


@pytest.fixture(scope="module", params=["torch", "jax", "tutorial"])
def real(request):
    with start(request.param) as peer:
        yield peer


def specification(case, op, dtype="float32"):
    return {"workload": "batch_norm", "shape": case.shape, "axis": case.axis, "op": op, "dtype": dtype}


@pytest.mark.parametrize("op", measure.OPS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_entry_of_a_peer_runs_on_every_layout(real, case, op):
    entries = real.ask({"prepare": specification(case, op)})["entries"]
    assert entries
    for entry in entries:
        times = real.ask({"measure": entry, "seconds": 0, "least": 2, "warm_up": True})["times"]
        assert len(times) == 2
        assert min(times) > 0


def test_a_peer_tells_its_version(real):
    assert list(real.versions) == [peers.PACKAGES[real.name]]


def test_what_a_peer_cannot_do_is_an_error_after_which_it_goes_on(real):
    with pytest.raises(peers.PeerError) as caught:
        real.ask({"prepare": specification(CASES[0], "train", "no-such-dtype")})
    assert caught.value.alive
    assert real.ask({"prepare": specification(CASES[0], "train")})["entries"]


def test_torch_is_asked_in_each_of_its_ways():
    with start("torch") as torch:
        forward = torch.ask({"prepare": specification(CASES[0], "train")})["entries"]
        backward = torch.ask({"prepare": specification(CASES[0], "backward")})["entries"]
    assert forward == ["F.batch_norm, autograd", "native_batch_norm", "native_batch_norm, out="]
    assert backward[0] == "F.batch_norm, autograd"
    assert backward[1:] == ["native_batch_norm_backward", "native_batch_norm_backward, out="]


@pytest.mark.parametrize("name", ["torch", "jax", "cudnn", pytest.param("torch-compile", marks=pytest.mark.slow)])
def test_the_ways_of_a_library_compute_the_same_batch_norm(name, tmp_path):
    with start(name):
        pass
    subprocess.run([sys.executable, AGREEMENT, name], cwd=tmp_path, check=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tutorials_code_computes_batch_norm(case):
    forward = tutorial_calls(case, "train-residual-relu", "float64")["BatchNormalization"]()
    generator = np.random.default_rng(0)
    x, dy, residual = (generator.standard_normal(case.shape) for _ in range(3))
    options = {"train": True, "axis": case.axis, "eps": 1e-6}
    y, _ = bnkit.batch_norm(x, None, None, residual=residual, activation="relu", **options)
    np.testing.assert_allclose(forward, y, atol=1e-12)  # a few roundings of float64
    _, cache = bnkit.batch_norm(x, None, None, activation="relu", **options)
    backward = tutorial_calls(case, "backward-relu", "float64")["BatchNormalization"]()
    np.testing.assert_allclose(backward, bnkit.batch_norm_backward(dy, cache).dx, atol=1e-12)


def test_the_other_libraries_are_never_imported_into_this_process(tmp_path):
    code = (
        "import sys, bnkit.lab.benchmark.rows, bnkit.lab.benchmark.plot, bnkit.cli\n"
        "from bnkit.lab.benchmark import peers\n"
        "for name in peers.PACKAGES:\n"
        "    try: peers.check_installed(name)\n"
        "    except ImportError: pass\n"
        "print(*({'torch', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_cudnn_tells_on_the_cpu_that_it_is_not_there():
    with start("cudnn") as peer:
        assert list(peer.versions) == ["torch", "cudnn"]
        entries = peer.ask({"prepare": specification(CASES[0], "train")})["entries"]
        with pytest.raises(peers.PeerError, match="cudnn_batch_norm") as caught:
            peer.ask({"measure": entries[0], "seconds": 0, "least": 1, "warm_up": True})
        assert caught.value.alive


def test_a_library_that_finds_no_device_tells_it(monkeypatch):
    with start("torch"):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(peers.PeerError, match="finds no CUDA device"):
        peers.Peer("torch", peers.command("torch", 1, "cuda:0"), 1)


def test_every_peer_computes_somewhere():
    assert {name for names in peers.ON_DEVICE.values() for name in names} == set(peers.PACKAGES)


def test_an_unknown_peer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"must be one of torch, jax, tutorial, torch-compile, cudnn, got 'keras'"):
        peers.check_installed("keras")


def test_a_peer_that_is_not_installed_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(peers.PACKAGES, "torch", "no_such_package")
    with pytest.raises(ImportError, match="run pip install no_such_package"):
        peers.check_installed("torch")


def test_a_peer_that_dies_is_told_with_its_code_and_last_line():
    peer = fake("dies")
    for _ in range(2):
        peer.ask({"prepare": {}})
    with pytest.raises(peers.PeerError, match="ended with exit code 3: the last line") as caught:
        peer.ask({"measure": "fast"})
    assert not caught.value.alive
    peer.close()


def test_a_peer_that_hangs_is_ended_after_its_time():
    peer = fake("hangs", patience=0.5)
    for _ in range(2):
        peer.ask({"prepare": {}})
    start = time.monotonic()
    with pytest.raises(peers.PeerError, match=r"gave no answer in 0.5 s") as caught:
        peer.ask({"measure": "fast"})
    assert not caught.value.alive
    assert 0.5 <= time.monotonic() - start < 10


@pytest.mark.parametrize(("manner", "said"), [("absent", "no module named fake"), ("mute", "gave no answer")])
def test_a_peer_that_does_not_come_up_is_told_at_once(manner, said):
    with pytest.raises(peers.PeerError, match=said):
        fake(manner, patience=1)


@pytest.mark.parametrize(("manner", "said"), [("dies", "exit code 3"), ("hangs", "no answer in 1 s")])
def test_a_lost_peer_asked_again_tells_the_same(manner, said):
    peer = fake(manner, patience=1)
    for _ in range(2):
        peer.ask({"prepare": {}})
    for _ in range(2):
        with pytest.raises(peers.PeerError, match=said):
            peer.ask({"measure": "fast"})


def test_what_a_library_prints_does_not_disturb_the_answers():
    code = (
        "import runpy, sys, types\n"
        "noisy = types.ModuleType('noisy')\n"
        "noisy.prepare = lambda peer, specification: {'loud': lambda: print('not JSON', flush=True)}\n"
        "sys.modules['bnkit.lab.benchmark.peers.noisy'] = noisy\n"
        "sys.argv = ['peers', 'tutorial', '1', 'cpu']\n"
        "runpy.run_module('bnkit.lab.benchmark.peers', run_name='__main__')"
    )
    peer = peers.Peer("noisy", [sys.executable, "-c", code], 1)
    assert peer.ask({"prepare": {"workload": "noisy"}}) == {"entries": ["loud"]}
    assert len(peer.ask({"measure": "loud", "seconds": 0, "least": 3, "warm_up": True})["times"]) == 3
    peer.close()


def test_a_peer_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("print('from the current folder')")
    monkeypatch.chdir(tmp_path)
    peer = peers.Peer("tutorial", peers.command("tutorial", 1), 1)
    peer.close()
    assert "numpy" in peer.versions


def test_what_a_process_prints_at_its_start_is_named(tmp_path):
    code = "print('welcome')"
    with pytest.raises(peers.PeerError, match="'welcome', which is no JSON"):
        peers.Peer("tutorial", [sys.executable, "-c", code], 1)
