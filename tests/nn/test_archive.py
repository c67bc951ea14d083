import gc
import json
import os
import pickle
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bnkit.nn import archive

posix_only = pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "params/0.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "params/a.b/c.d/..e": rng.normal(size=2),
        "state/1.count": np.asarray(rng.integers(100), np.int64),
        "arr_0": rng.integers(9, size=(2, 0, 3)),
        "größe": np.asfortranarray(rng.normal(size=(3, 2))),
        "view": rng.normal(size=(6, 6))[::2, ::-3],
        "flags": rng.normal(size=5) > 0,
        "name.npy": rng.normal(size=1),
    }


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        assert found[name].dtype == a.dtype, name
        np.testing.assert_array_equal(found[name], a)
        assert found[name].shape == a.shape, name
    return True


def test_load_gives_back_description_and_arrays(tmp_path):
    description = {"sizes": [1, 2], "decay": None, "loss": [0.1 + 0.2, 1e-300, float("inf")], "ü": {"nested": True}}
    archive.save(tmp_path / "f.npz", "mlp", description, arrays())
    found, named = archive.load(tmp_path / "f.npz", "mlp")
    assert found == description
    assert same(named, arrays())


def test_a_file_may_hold_no_arrays(tmp_path):
    archive.save(tmp_path / "f", "mlp", {}, {})
    assert archive.load(str(tmp_path / "f"), "mlp") == ({}, {})


def test_a_number_that_is_none_survives(tmp_path):
    archive.save(tmp_path / "f", "fit", {"loss": [float("nan"), -0.0]}, {})
    nan, zero = archive.load(tmp_path / "f", "fit")[0]["loss"]
    assert np.isnan(nan)
    assert np.signbit(zero)


def test_another_kind_of_file_is_refused_by_name(tmp_path):
    archive.save(tmp_path / "f.npz", "mlp", {}, arrays())
    with pytest.raises(ValueError, match=r"f\.npz must hold 'fit'.*'mlp'"):
        archive.load(tmp_path / "f.npz", "fit")


def test_a_later_format_is_refused_by_name(tmp_path):
    path = tmp_path / "f.npz"
    archive.save(path, "mlp", {}, arrays())
    with np.load(path) as file:
        named = dict(file)
    header = json.loads(named["bnkit.json"].tobytes())
    header["format"] += 1
    np.savez(path, **{**named, "bnkit.json": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    with pytest.raises(ValueError, match=r"f\.npz must hold 'mlp' of format"):
        archive.load(path, "mlp")


def test_saving_again_replaces_the_file(tmp_path):
    for seed in (0, 1):
        archive.save(tmp_path / "f.npz", "mlp", {"seed": seed}, arrays(seed))
    found, named = archive.load(tmp_path / "f.npz", "mlp")
    assert found == {"seed": 1}
    assert same(named, arrays(1))
    assert os.listdir(tmp_path) == ["f.npz"]


FAILURES = {
    "an array that only pickle could hold": ({}, {"a": np.ones(1000), "b": np.array([{}], dtype=object)}, ValueError),
    "a description that is no JSON": ({"a": np.ones(2)}, {"a": np.ones(1000)}, TypeError),
}


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_write_leaves_the_old_file_and_no_litter(tmp_path, failure, existing):
    description, named, error = FAILURES[failure]
    path = tmp_path / "f.npz"
    if existing:
        archive.save(path, "mlp", {}, arrays())
    before = path.read_bytes() if existing else None
    with pytest.raises(error):
        archive.save(path, "mlp", description, named)
    assert os.listdir(tmp_path) == (["f.npz"] if existing else [])
    assert existing is False or path.read_bytes() == before


@pytest.mark.parametrize("fails", ["fsync", "replace", "chmod"])
def test_a_failing_system_call_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, fails):
    path = tmp_path / "f.npz"
    archive.save(path, "mlp", {}, arrays())
    before = path.read_bytes()

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, no_space)
    with pytest.raises(OSError, match="No space left"):
        archive.save(path, "mlp", {}, arrays(1))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f.npz"]


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        archive.save(tmp_path / "missing" / "f.npz", "mlp", {}, arrays())
    assert os.listdir(tmp_path) == []


@posix_only
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_permission_bits_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        archive.save(tmp_path / "f.npz", "mlp", {}, arrays())
        assert os.umask(umask) == umask  # it was left as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f.npz").stat().st_mode) == 0o666 & ~umask


def test_the_file_is_a_plain_npz_without_pickle(tmp_path):
    path = tmp_path / "f.npz"
    archive.save(path, "mlp", {"a": 1}, arrays())
    with np.load(path, allow_pickle=False) as file:
        assert same({k: file[k] for k in arrays()}, arrays())
        assert json.loads(file["bnkit.json"].tobytes())["description"] == {"a": 1}


class _Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_in_the_file_is_refused_and_never_executed(tmp_path):
    path, trap = tmp_path / "f.npz", tmp_path / "sprung"
    header = np.frombuffer(json.dumps({"format": 1, "kind": "mlp", "description": {}}).encode(), np.uint8)
    np.savez(path, **{"bnkit.json": header, "a": np.array([_Trap(trap)], dtype=object)})
    with pytest.raises(ValueError, match=r"f\.npz"):
        archive.load(path, "mlp")
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Trap(trap)))
    assert trap.exists()  # the trap works


def test_a_zip_of_something_else_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as packed:
        packed.writestr("bnkit.json", json.dumps({"format": 1, "kind": "mlp", "description": {}}))
        packed.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"f\.npz"):
        archive.load(tmp_path / "f.npz", "mlp")


@pytest.mark.skipif(
    sys.platform == "win32", reason="an open file cannot be unlinked there, so the leak shows by itself"
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_refused_file_is_closed(tmp_path, share):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no list of open files")
    path = tmp_path / "f.npz"
    archive.save(path, "mlp", {}, arrays())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"f\.npz") as caught:
        archive.load(path, "mlp")
    assert caught.value.__cause__ is not None  # which keeps the frames alive, and what they opened
    opened = [p for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
    assert path not in [p.readlink() for p in opened]
    del caught
    gc.collect()  # a warning of an unclosed file belongs to this test


def test_names_and_shapes_are_compared_before_anything_is_written():
    own = {"a": np.ones((2, 3)), "b": np.ones(4)}
    archive.check_names(own, {"a": np.zeros((2, 3)), "b": np.zeros(4)}, "here")
    with pytest.raises(ValueError, match="here must hold"):
        archive.check_names(own, {"a": np.zeros((2, 3))}, "here")
    with pytest.raises(ValueError, match=r"here: b must be float64 of shape \(4,\), got float64 of \(5,\)"):
        archive.check_names(own, {"a": np.zeros((2, 3)), "b": np.zeros(5)}, "here")
