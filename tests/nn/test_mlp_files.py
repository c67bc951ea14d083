"""An MLP copied, saved and loaded, and the files that are refused."""

import copy
import gc
import json
import os
import pickle

import numpy as np
import pytest
from small_mlp import OPTIONS, batch, everything, make, stir

from bnkit import MLP, get_backend
from bnkit.nn import archive

COPIES = [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("replicas", [None, 2])
def test_a_copy_goes_on_as_the_original_and_apart_from_it(backend, copied, replicas):
    model, (x, t) = stir(make(backend, dropout=0.3, replicas=replicas)), batch()
    model.loss_and_grads(x, t)
    twin, before = copied(model), everything(model)
    assert everything(twin) == before
    assert twin.backend is backend
    loss = backend.to_numpy(twin.loss_and_grads(x, t, step=5)[0])
    assert everything(model) == before
    np.testing.assert_array_equal(loss, backend.to_numpy(model.loss_and_grads(x, t, step=5)[0]))
    assert everything(model) == everything(twin)


def trained(backend, **options) -> MLP:
    model = stir(make(backend, **options))
    for step in range(2):
        model.loss_and_grads(*batch(seed=step), step=step)
    return model


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_load_gives_back_what_save_wrote(backend, tmp_path, name, replicas):
    options = {**OPTIONS[name], "replicas": replicas, "init": 0.3 if replicas is None else [0.3, "he"]}
    model = trained(backend, **options)
    model.save(tmp_path / "net.npz")
    found = MLP.load(tmp_path / "net.npz", backend=backend)
    assert repr(found) == repr(model)
    assert everything(found) == everything(model)
    x, t = batch(seed=5)
    np.testing.assert_array_equal(backend.to_numpy(found.predict(x)), backend.to_numpy(model.predict(x)))
    for m in (found, model):
        m.loss_and_grads(x, t, step=4)
    assert everything(found) == everything(model)


def test_a_saved_network_loads_on_another_backend(backend, tmp_path):
    for source, target in ((backend, get_backend("numpy")), (get_backend("numpy"), backend)):
        model = trained(source, dropout=0.2)
        model.save(tmp_path / "net.npz")
        found = MLP.load(tmp_path / "net.npz", backend=target.key)
        assert found.backend is target
        assert everything(found) == everything(model)


def test_save_writes_to_exactly_the_path_it_is_given(backend, tmp_path):
    for path in (tmp_path / "net", str(tmp_path / "net.bnkit")):
        make(backend).save(path)
        MLP.load(path, backend=backend)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "net.bnkit"]


def test_sizes_and_seeds_may_be_numpy_integers(backend, tmp_path):
    _, t = batch()
    model = make(backend, (np.int64(5), np.int32(4), t.max() + 1), replicas=2, seed=list(np.arange(2)))
    model.save(tmp_path / "net.npz")
    assert everything(MLP.load(tmp_path / "net.npz", backend=backend)) == everything(model)


def saved(tmp_path) -> tuple:
    path = tmp_path / "net.npz"
    trained("numpy").save(path)
    return path, path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, share):
    path, content = saved(tmp_path)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")
    gc.collect()  # a warning of an unclosed file belongs to this test


def test_a_damaged_file_is_refused_by_name_or_loads_the_same_network(tmp_path):
    """One byte in three, each in a copy of its own; some bytes of a zip file, as the time of day, mean nothing."""
    path, content = saved(tmp_path)
    expected, refused = everything(MLP.load(path, backend="numpy")), 0
    for i in range(0, len(content), 3):
        spoilt = bytearray(content)
        spoilt[i] ^= 0x81
        path.write_bytes(spoilt)
        try:
            found = everything(MLP.load(path, backend="numpy"))
        except ValueError as error:
            found = str(error)
            refused += 1
        assert found == expected or "net.npz" in found, f"byte {i} changed the network"
    gc.collect()
    assert refused > 0.5 * len(content) / 3


@pytest.mark.parametrize("byte", [b"\x63", b"\x01"])
def test_a_file_that_claims_another_compression_or_a_password_is_refused_by_name(tmp_path, byte):
    path, content = saved(tmp_path)
    entry = content.rindex(b"PK\x01\x02")  # an entry of the directory: flags at byte 8, compression at byte 10
    at = entry + (8 if byte == b"\x01" else 10)
    path.write_bytes(content[:at] + byte + content[at + 1 :])
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")


class _Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return __import__("os").mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "npy"])
def test_a_pickle_is_refused_by_name_and_never_executed(tmp_path, kind):
    path, trap = tmp_path / "net.npz", tmp_path / "sprung"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(_Trap(trap)))
    else:
        with path.open("wb") as file:
            np.save(file, np.array([_Trap(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")
    assert not trap.exists()


def test_a_foreign_file_is_refused_by_name(tmp_path):
    path = tmp_path / "net.npz"
    for write in (
        lambda: path.write_bytes(b"not a network at all"),
        lambda: np.savez(path, weight=np.ones(3)),
        lambda: np.savez(path, **{"bnkit.json": np.frombuffer(b"[1, 2]", np.uint8)}),
        lambda: np.savez(path, **{"bnkit.json": np.frombuffer(b"\xff{", np.uint8)}),
        lambda: path.write_text(json.dumps({"sizes": [3, 2]})),
    ):
        write()
        with pytest.raises(ValueError, match=r"net\.npz"):
            MLP.load(path, backend="numpy")


def test_a_plain_npy_file_is_refused_by_name(tmp_path):
    path = tmp_path / "net.npy"
    np.save(path, np.random.default_rng(0).normal(size=(5, 6)))
    with pytest.raises(ValueError, match=r"net\.npy"):
        MLP.load(path, backend="numpy")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_file_whose_arrays_do_not_fit_is_refused_by_name(tmp_path, change):
    path, _ = saved(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    if change == "missing":
        del arrays["state/1.running_mean"]
    elif change == "extra":
        arrays["params/9.weight"] = np.ones(3)
    else:
        arrays["params/0.weight"] = arrays["params/0.weight"][:, :1]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_negative_running_variance_is_refused_by_file_and_entry(backend, tmp_path, replicas):
    path, model = tmp_path / "net.npz", trained(backend, replicas=replicas)
    model.state["4.running_var"][..., 1] = -0.25
    model.save(path)
    with pytest.raises(ValueError, match=r"net\.npz: state/4\.running_var must be at least 0, got -0\.25;.*again"):
        MLP.load(path, backend=backend)
    target = trained(backend, replicas=replicas, seed=[1, 2][:replicas] if replicas else 1)
    before = everything(target)
    with pytest.raises(ValueError, match=r"here: state/4\.running_var"):
        target.set_arrays(model.arrays(), source="here")
    assert everything(target) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -0.0])
def test_a_running_variance_that_diverged_or_is_0_loads(backend, tmp_path, value):
    model = trained(backend)
    model.state["1.running_var"][...] = value
    model.state["1.running_mean"][...] = -1.0
    model.save(tmp_path / "net.npz")
    assert everything(MLP.load(tmp_path / "net.npz", backend=backend)) == everything(model)


def test_arrays_that_cannot_be_written_are_refused_before_anything_is_written(tmp_path):
    model, other = trained("numpy"), make("numpy", seed=1)
    other.network.layers[4].state["running_var"].flags.writeable = False
    before = everything(other)
    with pytest.raises(ValueError, match=r"state/4\.running_var must be writeable"):
        other.set_arrays(model.arrays(), source="here")
    assert everything(other) == before


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"net\.npz"):
        MLP.load(tmp_path / "net.npz", backend="numpy")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_norm": {"decay": np.float32(0.9), "eps": np.float64(1e-4), "ghost": np.int64(4)}},
        {"dtype": np.dtype("float32")},
        {"dtype": np.float64},
        {"replicas": np.int64(2), "seed": np.arange(2), "init": np.array([0.1, 0.2], np.float32)},
        {"dropout": np.float32(0.5), "weight_decay": np.float32(0.01), "bias": np.bool_(False)},
    ],
)
def test_options_that_numpy_made_are_saved(tmp_path, options):
    model = MLP((5, 6, 3), backend="numpy", **options)
    model.save(tmp_path / "m.npz")
    again = MLP.load(tmp_path / "m.npz", backend="numpy")
    assert again.config == model.config
    assert everything(again) == everything(model)


def test_a_link_is_written_through(tmp_path):
    model = make("numpy")
    (tmp_path / "there").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "there" / "m.npz")
    model.save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert everything(MLP.load(tmp_path / "there" / "m.npz", backend="numpy")) == everything(model)


def test_what_is_no_file_is_never_replaced(tmp_path):
    model = make("numpy")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder must be a file"):
        model.save(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="existing folder"):
        model.save(tmp_path / "nowhere" / "m.npz")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="pipe must be a file"):
            model.save(tmp_path / "pipe")
        assert not (tmp_path / "pipe").is_file()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "pipe") == ["folder"]


def test_a_file_with_another_description_is_refused_by_name(tmp_path):
    model = make("numpy")
    config = {k: v for k, v in model.config.items() if k != "seed"} | {"depth": 3}
    archive.save(tmp_path / "m.npz", "mlp", config, model.arrays())
    with pytest.raises(ValueError, match=r"m\.npz must describe.*seed.*depth"):
        MLP.load(tmp_path / "m.npz", backend="numpy")


def test_arrays_of_another_dtype_are_refused(tmp_path):
    model = make("numpy")
    arrays = {k: a.astype(np.complex128) if k == "params/0.weight" else a for k, a in model.arrays().items()}
    archive.save(tmp_path / "m.npz", "mlp", model.config, arrays)
    with pytest.raises(ValueError, match=r"params/0\.weight must be float64.*complex128"):
        MLP.load(tmp_path / "m.npz", backend="numpy")
