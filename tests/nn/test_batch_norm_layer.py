"""`bnkit.BatchNorm`: parameters, state, the cumulative average, copies and pickles."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}  # values below 8, rounded to float32 once or twice


def random(*shape: int, dtype: str = "float32", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


def test_a_new_layer_is_the_identity_with_mean_0_and_variance_1(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend)
    assert list(layer.params) == ["gamma", "beta"]
    assert list(layer.state) == ["running_mean", "running_var", "count"]
    arrays = {n: backend.to_numpy(a) for n, a in {**layer.params, **layer.state}.items() if n != "count"}
    for name, value in (("gamma", 1), ("beta", 0), ("running_mean", 0), ("running_var", 1)):
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], np.full(5, value))
    count = layer.state["count"]
    assert (type(count), count.dtype, count.shape, int(count)) == (np.ndarray, np.int64, (), 0)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_parameters_and_state_are_float32_or_float64_for_float64(dtype: str, kept: str) -> None:
    layer = bnkit.BatchNorm(3, dtype=dtype, backend="numpy")
    arrays = {**layer.params, **layer.state}
    assert {a.dtype.name for n, a in arrays.items() if n != "count"} == {kept}


@pytest.mark.parametrize(
    ("features", "axis", "shape"),
    [(5, 1, (7, 5)), (5, -1, (7, 2, 5)), ((4, 3, 2), (1, 2, 3), (7, 4, 3, 2)), ((2, 5), (0, 2), (2, 7, 5))],
    ids=str,
)
def test_the_layer_is_the_function(features: Any, axis: Any, shape: tuple[int, ...], backend: Backend) -> None:
    layer = bnkit.BatchNorm(features, axis=axis, decay=0.8, eps=1e-3, correction=0, activation="relu", backend=backend)
    kept = features if isinstance(features, tuple) else (features,)
    for name, array in layer.params.items():
        array[...] = backend.asarray(random(*kept, seed=len(name)))
    x, residual, dy = (backend.asarray(random(*shape, seed=s)) for s in range(3))
    arrays = [backend.asarray(backend.to_numpy(a).copy()) for a in (*layer.params.values(), *layer.state.values())[:4]]
    options: dict[str, Any] = {"decay": 0.8, "eps": 1e-3, "correction": 0, "activation": "relu", "axis": axis}
    for train in (True, False):
        y, cache = layer.forward(x, train=train, residual=residual)
        want, wanted = bnkit.batch_norm(x, *arrays, train=train, residual=residual, **options)
        dx, grads, dresidual = layer.backward(dy, cache)
        gradients = bnkit.batch_norm_backward(dy, wanted)
        pairs = [(y, want), (dx, gradients.dx), (dresidual, gradients.dresidual)]
        pairs += [(grads["gamma"], gradients.dgamma), (grads["beta"], gradients.dbeta)]
        pairs += list(zip(list(layer.state.values())[:2], arrays[2:], strict=True))
        for got, expected in pairs:
            np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(expected))
        assert int(layer.state["count"]) == 1


def test_backward_returns_two_values_without_a_residual(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend)
    x = backend.asarray(random(7, 5))
    _, cache = layer.forward(x, train=True)
    dx, grads = layer.backward(x, cache)
    assert tuple(dx.shape) == (7, 5)
    assert list(grads) == ["gamma", "beta"]


def test_mask_ghost_and_out_pass_through_the_layer(backend: Backend) -> None:
    x, mask = backend.asarray(random(8, 5)), backend.asarray(random(8, seed=1) > -0.5)
    out = backend.asarray(random(8, 5, seed=2))
    layer = bnkit.BatchNorm(5, ghost=3, correction=0, backend=backend)
    y, _ = layer.forward(x, train=True, mask=mask, out=out)
    want, _ = bnkit.batch_norm(x, None, None, train=True, mask=mask, ghost=3)
    assert y is out
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(want))


def test_no_decay_is_the_cumulative_average(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, decay=None, backend=backend)
    batches = [random(7, 5, seed=s) for s in range(4)]
    mean, var = layer.state["running_mean"], layer.state["running_var"]
    for i, x in enumerate(batches, start=1):
        layer.forward(backend.asarray(x), train=True)
        assert int(layer.state["count"]) == i
        seen = [b.astype(float) for b in batches[:i]]
        np.testing.assert_allclose(backend.to_numpy(mean), np.mean([b.mean(axis=0) for b in seen], axis=0), **CLOSE)
        expected = np.mean([b.var(axis=0, ddof=1) for b in seen], axis=0)
        np.testing.assert_allclose(backend.to_numpy(var), expected, **CLOSE)
    assert layer.state["running_mean"] is mean


def test_count_moves_in_training_alone_and_not_for_empty_or_refused_batches(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, decay=None, backend=backend)
    count = layer.state["count"]
    layer.forward(backend.asarray(random(7, 5)), train=True)
    layer.forward(backend.asarray(random(7, 5)), train=False)
    layer.forward(backend.asarray(random(0, 5)), train=True)
    for wrong, error in (
        (random(7, 4), ValueError),
        (random(1, 5), ValueError),
        (random(7, 5, dtype="float64"), TypeError),
    ):
        with pytest.raises(error):
            layer.forward(backend.asarray(wrong), train=True)
    assert layer.state["count"] is count
    assert int(count) == 1


@pytest.mark.parametrize(
    "options", [{}, {"decay": None}, {"ghost": 3}, {"renorm": (3, 5)}, {"in_place": True}], ids=str
)
def test_an_empty_batch_has_an_empty_y_and_gradients_of_zero(options: dict[str, Any], backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend, **options)
    x = backend.asarray(random(0, 5))
    y, cache = layer.forward(x, train=True)
    dx, grads = layer.backward(x, cache)
    assert tuple(y.shape) == tuple(dx.shape) == (0, 5)
    for gradient in grads.values():
        np.testing.assert_array_equal(backend.to_numpy(gradient), np.zeros(5))
    for name, value in (("running_mean", 0), ("running_var", 1)):
        np.testing.assert_array_equal(backend.to_numpy(layer.state[name]), np.full(5, value))
    assert int(layer.state["count"]) == 0


@pytest.mark.parametrize("options", [{}, {"renorm": (3, 5)}, {"in_place": True}], ids=str)
def test_a_batch_of_one_is_refused_and_moves_nothing(options: dict[str, Any], backend: Backend) -> None:
    layer, x = bnkit.BatchNorm(5, backend=backend, **options), backend.asarray(random(1, 5))
    with pytest.raises(ValueError, match="x must have more than 1 element a channel to move running_var"):
        layer.forward(x, train=True)
    np.testing.assert_array_equal(backend.to_numpy(x), random(1, 5))
    np.testing.assert_array_equal(backend.to_numpy(layer.state["running_mean"]), np.zeros(5))
    assert int(layer.state["count"]) == 0


def test_affine_off_has_no_parameters_and_no_gradients(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, affine=False, backend=backend)
    x = backend.asarray(random(7, 5))
    y, cache = layer.forward(x, train=True)
    want, _ = bnkit.batch_norm(x, None, None, train=True)
    assert layer.params == {}
    assert layer.backward(x, cache)[1] == {}
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(want))


def test_track_off_uses_the_batch_in_both_modes_and_keeps_nothing(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, track=False, backend=backend)
    x = backend.asarray(random(7, 5))
    assert layer.state == {}
    trained, inferred = (layer.forward(x, train=train) for train in (True, False))
    np.testing.assert_array_equal(backend.to_numpy(trained[0]), backend.to_numpy(inferred[0]))
    dx = [backend.to_numpy(layer.backward(x, cache)[0]) for _, cache in (trained, inferred)]
    np.testing.assert_array_equal(*dx)
    layer.forward(backend.asarray(random(1, 5)), train=True)  # no running variance would be updated
    assert layer.state == {}


@pytest.mark.parametrize("track", [True, False])
def test_train_must_be_a_bool(track: bool) -> None:
    layer = bnkit.BatchNorm(5, track=track)
    for wrong in (None, 1, "yes"):
        with pytest.raises(TypeError, match="train"):
            layer.forward(random(7, 5), train=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        layer.forward(random(7, 5))  # type: ignore[call-arg]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))], ids=["deepcopy", "pickle"])
def test_a_copied_layer_goes_on_by_itself_and_alike(copied: Any, backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, decay=None, activation="relu", backend=backend)
    x = backend.asarray(random(7, 5))
    layer.forward(x, train=True)
    other = copied(layer)
    before = backend.to_numpy(other.state["running_mean"]).copy()
    layer.forward(backend.asarray(random(7, 5, seed=1)), train=True)
    np.testing.assert_array_equal(backend.to_numpy(other.state["running_mean"]), before)
    assert int(other.state["count"]) == 1
    ours, theirs = (
        layer_.forward(backend.asarray(random(7, 5, seed=1)), train=True) for layer_ in (copied(other), other)
    )
    np.testing.assert_array_equal(backend.to_numpy(ours[0]), backend.to_numpy(theirs[0]))
    np.testing.assert_array_equal(*(backend.to_numpy(a.state["running_mean"]) for a in (layer, other)))
    assert int(layer.state["count"]) == int(other.state["count"]) == 2


def test_two_forwards_may_be_in_flight(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend)
    first, second = (backend.asarray(random(7, 5, seed=s)) for s in range(2))
    caches = [layer.forward(x, train=True)[1] for x in (first, second)]
    dy = backend.asarray(random(7, 5, seed=2))
    together = [backend.to_numpy(layer.backward(dy, cache)[0]) for cache in caches]
    alone = [backend.to_numpy(layer.backward(dy, layer.forward(x, train=True)[1])[0]) for x in (first, second)]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"features": 5.0}, TypeError),
        ({"features": True}, TypeError),
        ({"features": -1}, ValueError),
        ({"features": (5, 2)}, ValueError),
        ({"features": (), "axis": ()}, TypeError),
        ({"features": 5, "axis": (1, 2)}, ValueError),
        ({"features": 5, "decay": float("nan")}, ValueError),
        ({"features": 5, "decay": "0.9"}, TypeError),
        ({"features": 5, "decay": True}, TypeError),
        ({"features": 5, "eps": -1.0}, ValueError),
        ({"features": 5, "correction": 2}, ValueError),
        ({"features": 5, "activation": "tanh"}, ValueError),
        ({"features": 5, "ghost": 0}, ValueError),
        ({"features": 5, "ghost": 1.5}, TypeError),
        ({"features": 5, "backend": 3}, TypeError),
        ({"features": 5, "backend": "nope"}, bnkit.BackendError),
    ],
    ids=str,
)
def test_wrong_options_are_refused_when_the_layer_is_made(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        bnkit.BatchNorm(**options)


@pytest.mark.parametrize("decay", [1.5, -0.1, 90, np.float32(1.01), float("inf"), float("nan")])
def test_a_decay_outside_0_to_1_is_refused_when_the_layer_is_made(decay: Any) -> None:
    with pytest.raises(ValueError, match=r"decay must be a number from 0 to 1, or None .*1 - momentum") as caught:
        bnkit.BatchNorm(5, decay=decay, backend="numpy")
    assert f"got {decay!r};" in str(caught.value)
    with pytest.raises(ValueError, match="decay must be a number from 0 to 1"):
        bnkit.MLP((4, 5, 3), batch_norm={"decay": decay}, backend="numpy")


@pytest.mark.parametrize("decay", [0, 0.0, 1, 1.0, np.float64(0.5)])
def test_a_decay_of_0_to_1_keeps_that_share_of_the_old_running_mean(decay: Any, backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, decay=decay, dtype="float64", backend=backend)
    layer.state["running_mean"][...] = 3.0
    x = random(7, 5, dtype="float64")
    layer.forward(backend.asarray(x), train=True)
    moved = backend.to_numpy(layer.state["running_mean"])
    expected = decay * 3.0 + (1 - decay) * x.mean(axis=0)
    np.testing.assert_allclose(moved, expected, rtol=1e-14, atol=1e-15)  # sums of 7 numbers near 1 in float64


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("decay", "error"), [(1.5, ValueError), (-0.1, ValueError), ("0.9", TypeError)])
def test_a_decay_that_is_set_anew_is_checked_before_anything_moves(
    decay: Any, error: type[Exception], train: bool, backend: Backend
) -> None:
    layer = bnkit.BatchNorm(5, backend=backend)
    network = bnkit.Sequential(layer)
    layer.decay = decay
    for forward in (layer.forward, network.forward):
        with pytest.raises(error, match="decay must be a number"):
            forward(backend.asarray(random(7, 5)), train=train)
    state = {name: backend.to_numpy(a).tolist() for name, a in layer.state.items()}
    assert state == {"running_mean": [0] * 5, "running_var": [1] * 5, "count": 0}


def test_features_that_x_does_not_have_are_refused(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend)
    with pytest.raises(ValueError, match="shape"):
        layer.forward(backend.asarray(random(7, 6)), train=True)
    with pytest.raises(TypeError, match="float64"):
        layer.forward(backend.asarray(random(7, 5, dtype="float64")), train=True)


def test_a_layer_of_another_backend_than_its_input_is_refused(backend: Backend) -> None:
    other = "strict" if backend.name == "numpy" else "numpy"
    layer = bnkit.BatchNorm(5, backend=other)
    with pytest.raises(TypeError, match="one backend"):
        layer.forward(backend.asarray(random(7, 5)), train=True)


@pytest.mark.parametrize("option", ["affine", "track"])
def test_a_flag_must_be_a_bool(option: str) -> None:
    with pytest.raises(TypeError, match=f"{option} must be True or False, got 'no'"):
        bnkit.BatchNorm(5, backend="numpy", **{option: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", ["a", 1.0, None, (1.0,), True])
def test_an_axis_must_be_an_int(axis: Any) -> None:
    with pytest.raises(TypeError, match="axis must be an int"):
        bnkit.BatchNorm(5, axis=axis, backend="numpy")


def test_data_of_another_width_are_told_of_x(backend: Backend) -> None:
    for options in ({}, {"affine": False, "track": False}):
        layer = bnkit.BatchNorm(5, backend=backend, **options)
        with pytest.raises(ValueError, match=r"x must have \(5,\) features at axis 1, got shape \(7, 4\)"):
            layer.forward(backend.asarray(random(7, 4)), train=True)


def test_data_of_another_precision_are_told_the_layers_dtype(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend)
    with pytest.raises(TypeError, match="dtype='float32', got float64"):
        layer.forward(backend.asarray(random(7, 5, dtype="float64")), train=True)
