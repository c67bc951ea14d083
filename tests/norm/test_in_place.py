"""Batch norm over its own input: where y goes, how well x is recovered, and what is refused."""

import copy
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]


def random(*shape: int, dtype: Any = "float32", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ghost", [None, 3])
@pytest.mark.parametrize(
    ("shape", "axis"), [((9, 3), 1), ((9, 3, 4), 1), ((9, 4, 3), -1), ((2, 9, 3), (0, 2))], ids=str
)
def test_y_is_written_over_x(shape: Any, axis: Any, ghost: int | None, train: bool, backend: Backend) -> None:
    kept = tuple(shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    small = [random(*kept, seed=s) ** 2 + 0.5 for s in range(4)]
    results = []
    for in_place in (False, True):
        x, there = backend.asarray(random(*shape)), [backend.asarray(a.copy()) for a in small]
        y, cache = bnkit.batch_norm(x, *there, train=train, axis=axis, ghost=ghost, in_place=in_place)
        grads = bnkit.batch_norm_backward(backend.asarray(random(*shape, seed=7)), cache)
        assert (y is x) == in_place
        results.append([backend.to_numpy(a) for a in (y, *there[2:], *grads[:3])])
    for got, want in zip(*results, strict=True):
        # float32: x_hat off by 6e-8 * (|x_hat| + |beta / gamma|), below 6e-7 here, and sums of 9 to 36 such terms
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_channels_last_strides_are_written_over_in_place() -> None:
    x = np.moveaxis(random(6, 5, 5, 3), -1, 1)
    want, _ = bnkit.batch_norm(x, None, None, train=True)
    y, cache = bnkit.batch_norm(x, None, None, train=True, in_place=True)
    assert y is x
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-6)  # two roundings of values below 8
    assert bnkit.batch_norm_backward(y, cache).dx.strides == x.strides


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("ratio", [0.0, 1.0, 15.0])
def test_the_gradients_are_off_by_no_more_than_the_rounding_of_y(dtype: Any, ratio: float) -> None:
    """ratio is |beta / gamma|; the bound is the rule of bnkit/norm/in_place.py."""
    roundoff = float(ml_dtypes.finfo(dtype).eps) / 2
    x, dy = random(500, 3, dtype=dtype), random(500, 3, dtype=dtype, seed=1)
    parameter = "float64" if dtype == "float64" else "float32"
    gamma = np.array([0.1, -1.0, 3.0], parameter)
    beta = (ratio * gamma).astype(parameter)
    _, cache = bnkit.batch_norm(x.astype(np.float64), *map(np.float64, (gamma, beta)), train=True)
    wanted = bnkit.batch_norm_backward(dy.astype(np.float64), cache)
    _, cache = bnkit.batch_norm(x, gamma, beta, train=True, in_place=True)
    grads = bnkit.batch_norm_backward(dy, cache)
    off = roundoff * (4 + ratio)  # of x_hat, which is below 4
    scale = np.abs(gamma.astype(float)) / x.astype(float).std(axis=0)
    # dx = scale * (dy - mean(dy) - x_hat * mean(dy * x_hat)), the last mean below 2, itself off by as much; |dy| < 6
    assert np.all(np.abs(grads.dx.astype(float) - wanted.dx) < scale * (off * 12 + 8 * roundoff))
    # a sum of dy * x_hat over 500 rows of |dy| of order 2
    assert np.all(np.abs(grads.dgamma - wanted.dgamma) < off * 1000)


def test_a_cache_serves_several_backwards(backend: Backend) -> None:
    x, dy = backend.asarray(random(9, 3)), backend.asarray(random(9, 3, seed=1))
    _, cache = bnkit.batch_norm(x, None, None, train=True, in_place=True)
    first, second = (backend.to_numpy(bnkit.batch_norm_backward(dy, cache).dx) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("reduce", [None, lambda a: a * 1.0], ids=["alone", "with reduce"])
def test_a_wholly_masked_channel_gives_beta_and_no_gradient(reduce: Any, backend: Backend) -> None:
    x, mask = random(9, 3), random(9, 3, seed=1) > 0
    x[2, 1], mask[:, 1] = np.nan, False
    gamma, beta = backend.asarray(random(3, seed=2)), backend.asarray(np.float32([0.1, 0.2, 0.3]))
    y, cache = bnkit.batch_norm(
        backend.asarray(x), gamma, beta, train=True, in_place=True, mask=backend.asarray(mask), reduce=reduce
    )
    grads = bnkit.batch_norm_backward(backend.asarray(random(9, 3, seed=3)), cache)
    np.testing.assert_array_equal(backend.to_numpy(y)[:, 1], np.full(9, np.float32(0.2)))
    np.testing.assert_array_equal(backend.to_numpy(grads.dx)[:, 1], np.zeros(9))
    assert np.isfinite(backend.to_numpy(grads.dgamma)).all()


def test_the_rounding_of_beta_is_no_gradient_of_a_wholly_masked_channel() -> None:
    x, mask = random(9, 3, dtype="float16"), np.ones((9, 3), bool)
    mask[:, 1] = False
    gamma, beta = np.ones(3, np.float32), np.float32([0.1, 0.2, 0.3])  # which float16 has not
    _, cache = bnkit.batch_norm(x, gamma, beta, train=True, in_place=True, mask=mask)
    assert bnkit.batch_norm_backward(random(9, 3, dtype="float16", seed=1), cache).dgamma[1] == 0


def test_an_empty_batch_is_taken(backend: Backend) -> None:
    x = backend.asarray(random(0, 3))
    y, cache = bnkit.batch_norm(x, None, None, train=True, in_place=True)
    assert y is x
    assert tuple(bnkit.batch_norm_backward(x, cache).dx.shape) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"activation": "relu"}, "activation must be None with in_place=True"),
        ({"residual": random(9, 3)}, "residual must be None with in_place=True"),
        ({"out": random(9, 3)}, "out must be None with in_place=True"),
        ({"gamma": np.float32([1, 0, 1])}, r"gamma must be from .* got 0 and \|beta\| 0.3 in channel 1; use in_place"),
        ({"gamma": np.float32([1, 1, 1e-6])}, "gamma must be from"),
        ({"gamma": np.float32([1, 1, 1e30])}, "gamma must be from"),
        ({"gamma": np.float32([1, -1e-3, 1]), "beta": np.float32([0, 5, 0])}, "in channel 1"),
        ({"gamma": None, "beta": np.float32([0, 5e3, 0])}, "in channel 1"),
    ],
    ids=str,
)
def test_what_does_not_let_x_be_recovered_is_refused_before_any_write(
    changes: dict[str, Any], match: str, backend: Backend
) -> None:
    arrays = {
        "gamma": np.ones(3, np.float32),
        "beta": np.full(3, 0.3, np.float32),
        "running_mean": np.zeros(3, np.float32),
        "running_var": np.ones(3, np.float32),
    }
    given = {k: backend.asarray(v.copy()) if isinstance(v, np.ndarray) else v for k, v in {**arrays, **changes}.items()}
    x = backend.asarray(random(9, 3))
    with pytest.raises(ValueError, match=match):
        bnkit.batch_norm(x, train=True, in_place=True, **given)
    np.testing.assert_array_equal(backend.to_numpy(x), random(9, 3))
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(backend.to_numpy(given[name]), arrays[name])


def test_half_precision_is_refused_at_a_smaller_beta() -> None:
    gamma, beta = np.ones(3, np.float32), np.full(3, 50, np.float32)
    bnkit.batch_norm(random(9, 3), gamma, beta, train=True, in_place=True)
    with pytest.raises(ValueError, match=r"at least 0.022 \* \|beta\|"):
        bnkit.batch_norm(random(9, 3, dtype="float16"), gamma, beta, train=True, in_place=True)


def test_nan_in_a_parameter_is_no_error_and_stays_in_its_channel(backend: Backend) -> None:
    gamma = backend.asarray(np.float32([1, np.nan, 1]))
    x = backend.asarray(random(9, 3))
    _, cache = bnkit.batch_norm(x, gamma, None, train=True, in_place=True)
    dx = backend.to_numpy(bnkit.batch_norm_backward(backend.asarray(random(9, 3, seed=1)), cache).dx)
    assert np.isnan(dx).any(axis=0).tolist() == [False, True, False]


@pytest.mark.parametrize("case", ["a view with gaps", "reversed", "read-only", "broadcast"])
def test_an_x_that_cannot_be_written_over_is_refused(case: str) -> None:
    x = {
        "a view with gaps": random(9, 6)[:, ::2],
        "reversed": random(9, 3)[::-1],
        "read-only": random(9, 3),
        "broadcast": np.broadcast_to(random(1, 3), (9, 3)),
    }[case]
    if case == "read-only":
        x.flags.writeable = False
    with pytest.raises(ValueError, match="x must be"):
        bnkit.batch_norm(x, None, None, train=True, in_place=True)


def test_an_x_that_overlaps_itself_is_refused() -> None:
    x = np.lib.stride_tricks.as_strided(random(1, 3), (9, 3), (0, 4))
    with pytest.raises(ValueError, match="x must not overlap itself"):
        bnkit.batch_norm(x, None, None, train=True, in_place=True)


def test_x_that_holds_a_parameter_is_refused() -> None:
    x = random(9, 3)
    with pytest.raises(ValueError, match="x must not overlap gamma"):
        bnkit.batch_norm(x, x[0], None, train=True, in_place=True)


def test_in_place_must_be_a_bool() -> None:
    with pytest.raises(TypeError, match="in_place must be True or False, got 1"):
        bnkit.batch_norm(random(9, 3), None, None, train=True, in_place=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [lambda a: a, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_layer_writes_over_its_input(copied: Any, reuse: bool, backend: Backend) -> None:
    layer = copied(bnkit.BatchNorm(3, in_place=True, reuse=reuse, backend=backend))
    x = backend.asarray(random(9, 3))
    assert layer.forward(x, train=True)[0] is x
    with pytest.raises(ValueError, match="out must be None"):
        layer.forward(x, train=True, out=backend.asarray(random(9, 3)))


def test_a_relu_after_it_is_done_apart(backend: Backend) -> None:
    x, dy = random(9, 3), backend.asarray(random(9, 3, seed=1))
    results = []
    for in_place in (False, True):
        net = bnkit.Sequential(bnkit.BatchNorm(3, in_place=in_place, backend=backend), bnkit.ReLU())
        y, cache = net.forward(backend.asarray(x), train=True)
        results.append([backend.to_numpy(a) for a in (y, net.backward(dy, cache)[0])])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)  # float32, a rounding more of values below 8


@pytest.mark.parametrize("before", [bnkit.ReLU, bnkit.Tanh, bnkit.Sigmoid, bnkit.Dropout, lambda: bnkit.BatchNorm(3)])
def test_a_network_that_would_lose_what_a_layer_keeps_is_refused(before: Any) -> None:
    norm = bnkit.BatchNorm(3, in_place=True)
    with pytest.raises(ValueError, match="in_place=True after"):
        bnkit.Sequential(bnkit.Linear(3, 3), bnkit.Sequential(before()), norm)
    bnkit.Sequential(bnkit.Linear(3, 3), norm, before())


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_network_trains_in_place_as_it_does_else(activation: str, backend: Backend) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    options: dict[str, Any] = {"activation": activation, "backend": backend, "dtype": "float64", "dropout": 0.2}
    models = [bnkit.MLP((6, 5, 4, 3), batch_norm={"in_place": i}, **options) for i in (False, True)]
    for model in models:
        bnkit.fit(model, data, optimizer=bnkit.optim.SGD(), epochs=2, batch_size=10)
    for a, b in zip(*(model.params.values() for model in models), strict=True):
        # float64: 8 steps, each off by some roundings
        np.testing.assert_allclose(backend.to_numpy(a), backend.to_numpy(b), rtol=1e-9, atol=1e-10)


def test_update_statistics_does_not_write_over_its_data(backend: Backend) -> None:
    layer = bnkit.BatchNorm(3, in_place=True, backend=backend)
    x = backend.asarray(random(9, 3))
    bnkit.update_statistics(bnkit.Sequential(layer, bnkit.BatchNorm(3, backend=backend)), [x])
    np.testing.assert_array_equal(backend.to_numpy(x), random(9, 3))
    assert layer.in_place


def test_double_backward_of_a_cache_without_x_is_not_implemented(backend: Backend) -> None:
    x, gamma = backend.asarray(random(9, 3)), backend.asarray(np.ones(3, np.float32))
    _, cache = bnkit.batch_norm(x, gamma, None, train=True, in_place=True)
    with pytest.raises(NotImplementedError, match="does not know in_place; the formula"):
        bnkit.batch_norm_double_backward(x, None, None, x, cache)
