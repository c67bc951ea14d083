"""Batch renormalization: its formula, its limits, and what it does to the statistics."""

import math
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}  # float64: a few roundings


def random(*shape: int, dtype: str = "float64", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


def small(n: int = 4, dtype: str = "float64") -> list[Host]:
    """gamma, beta, running_mean, running_var: near the batch's, far off, far off to the other side."""
    rng = np.random.default_rng(n)
    mean = rng.uniform(-1, 1, n) + np.array([0.0, 8.0, -8.0, 0.0])[:n]
    return [
        a.astype(dtype) for a in (rng.uniform(-2, 2, n), rng.normal(size=n), mean, np.array([2.0, 90, 0.01, 1])[:n])
    ]


def keras(x: Host, gamma: Host, beta: Host, mean: Host, var: Host, r_max: float, d_max: float, eps: float) -> Host:
    """The training branch of Keras 2, `renorm=True` with rmin = 1 / rmax, where moving_stddev is sqrt(var + eps)."""
    batch_mean, stddev = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    moving_stddev = np.sqrt(var + eps)
    r = np.minimum(np.maximum(stddev / moving_stddev, 1 / r_max), r_max)
    d = np.minimum(np.maximum((batch_mean - mean) / moving_stddev, -d_max), d_max)
    scale, offset = r * gamma, d * gamma + beta
    return (x - batch_mean) / stddev * scale + offset


@pytest.mark.parametrize("limits", [(1.0, 0.0), (1.5, 0.5), (3, 5), [3.0, 5.0], (math.inf, np.float32("inf"))], ids=str)
def test_y_is_the_papers(limits: Any, backend: Backend) -> None:
    x, arrays = random(9, 4), small()
    y, _ = bnkit.batch_norm(
        backend.asarray(x), *(backend.asarray(a.copy()) for a in arrays), train=True, renorm=limits, eps=1e-3
    )
    np.testing.assert_allclose(backend.to_numpy(y), keras(x, *arrays, *limits, 1e-3), **EXACT)


def test_without_limits_y_is_that_of_inference(backend: Backend) -> None:
    x, arrays = backend.asarray(random(9, 4)), [backend.asarray(a) for a in small()]
    want, _ = bnkit.batch_norm(x, *arrays, train=False)
    y, _ = bnkit.batch_norm(x, *arrays, train=True, renorm=(math.inf, math.inf))
    np.testing.assert_allclose(backend.to_numpy(y), backend.to_numpy(want), **EXACT)


def test_the_tightest_limits_are_plain_batch_norm(backend: Backend) -> None:
    x, dy, results = backend.asarray(random(9, 4)), backend.asarray(random(9, 4, seed=1)), []
    for renorm in (None, (1.0, 0.0)):
        arrays = [backend.asarray(a.copy()) for a in small()]
        y, cache = bnkit.batch_norm(x, *arrays, train=True, renorm=renorm)
        grads = bnkit.batch_norm_backward(dy, cache)[:3]
        results.append([backend.to_numpy(a) for a in (y, *arrays[2:], *grads)])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, **EXACT)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gamma_and_beta_may_be_missing_in_narrower_dtypes(dtype: str) -> None:
    x, (_, _, mean, var) = random(9, 3, dtype=dtype), small(3, "float32")
    y, cache = bnkit.batch_norm(x, None, None, mean.copy(), var.copy(), train=True, renorm=(1.5, 0.5))
    grads = bnkit.batch_norm_backward(y, cache)
    want = keras(x.astype(float), np.ones(3), np.zeros(3), mean.astype(float), var.astype(float), 1.5, 0.5, 1e-5)
    # |y| < 8: half a unit of float16 is 2e-3; in float32 the products with r are rounded too
    np.testing.assert_allclose(y.astype(float), want, rtol=0, atol=2e-3 if dtype == "float16" else 2e-6)
    assert y.dtype == grads.dx.dtype == dtype
    assert grads.dgamma is grads.dbeta is None


def test_the_statistics_move_as_ever_and_after_y(backend: Backend) -> None:
    moved = []
    for renorm in (None, (3.0, 5.0)):
        arrays = [backend.asarray(a.copy()) for a in small()]
        bnkit.batch_norm(backend.asarray(random(9, 4)), *arrays, train=True, renorm=renorm)
        moved.append([backend.to_numpy(a) for a in arrays[2:]])
    for got, want in zip(*moved, strict=True):
        np.testing.assert_allclose(got, want, **EXACT)


@pytest.mark.parametrize("hidden", [1.0, np.nan])
def test_a_wholly_masked_channel_gives_beta(hidden: float, backend: Backend) -> None:
    x, mask, arrays = random(9, 4), random(9, 4, seed=1) > 0, small()
    x[3, 1], mask[:, 1] = hidden, False
    there = [backend.asarray(a.copy()) for a in arrays]
    y, cache = bnkit.batch_norm(backend.asarray(x), *there, train=True, renorm=(3, 5), mask=backend.asarray(mask))
    dx = backend.to_numpy(bnkit.batch_norm_backward(backend.asarray(random(9, 4, seed=2)), cache).dx)
    np.testing.assert_array_equal(backend.to_numpy(y)[:, 1], np.full(9, arrays[1][1]))
    np.testing.assert_array_equal(dx[:, 1], np.zeros(9))
    assert np.isfinite(backend.to_numpy(y)).all()
    assert backend.to_numpy(there[2])[1] == arrays[2][1]


def test_an_empty_batch_moves_nothing(backend: Backend) -> None:
    there = [backend.asarray(a.copy()) for a in small()]
    y, cache = bnkit.batch_norm(backend.asarray(random(0, 4)), *there, train=True, renorm=(3, 5))
    grads = bnkit.batch_norm_backward(y, cache)
    for got, want in zip(there, small(), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(got), want)
    np.testing.assert_array_equal(backend.to_numpy(grads.dgamma), np.zeros(4))


@pytest.mark.parametrize(
    ("renorm", "error", "match"),
    [
        (3.0, TypeError, r"renorm must be None or \(r_max, d_max\), got 3.0"),
        ((3.0,), TypeError, "renorm must be"),
        (("3", 5.0), TypeError, "renorm's r_max"),
        ((3.0, None), TypeError, "renorm's d_max"),
        ((0.5, 5.0), ValueError, "renorm's r_max must be a finite number of at least 1, got 0.5"),
        ((3.0, -1.0), ValueError, "renorm's d_max"),
        ((math.nan, 5.0), ValueError, "renorm's r_max"),
    ],
    ids=str,
)
def test_wrong_limits_are_refused(renorm: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        bnkit.batch_norm(random(9, 4), *small(), train=True, renorm=renorm)
    with pytest.raises(error, match=match):
        bnkit.BatchNorm(4, renorm=renorm, backend="numpy")


def test_training_without_running_arrays_is_refused_and_names_them() -> None:
    with pytest.raises(ValueError, match="renorm needs running_mean and running_var"):
        bnkit.batch_norm(random(9, 4), None, None, train=True, renorm=(3, 5))
    with pytest.raises(ValueError, match="renorm needs running statistics, got track=False"):
        bnkit.BatchNorm(4, renorm=(3, 5), track=False, backend="numpy")


@pytest.mark.parametrize("other", [{"ghost": 2}, {"in_place": True}], ids=str)
def test_what_does_not_go_with_renorm_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"renorm and {next(iter(other))}.* must not be given together"):
        bnkit.batch_norm(random(9, 4), *small(), train=True, renorm=(3, 5), **other)


def test_the_limits_of_a_layer_may_be_widened_between_steps(backend: Backend) -> None:
    layer = bnkit.BatchNorm(4, renorm=(1.0, 0.0), dtype="float64", backend=backend)
    for limits in ((1.0, 0.0), (2.0, 1.0), (3.0, 5.0)):
        x = random(9, 4, seed=int(limits[0]))
        mean, var = (backend.to_numpy(layer.state[n]).copy() for n in ("running_mean", "running_var"))
        layer.renorm = limits
        y, _ = layer.forward(backend.asarray(x), train=True)
        want = keras(x, np.ones(4), np.zeros(4), mean, var, *limits, 1e-5)
        np.testing.assert_allclose(backend.to_numpy(y), want, **EXACT)


def test_a_network_trains_with_renorm_and_its_file_keeps_it(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    model = bnkit.MLP((6, 5, 3), batch_norm={"renorm": (np.float32(3), math.inf)}, backend="numpy")
    bnkit.fit(model, data, optimizer=bnkit.optim.SGD(), epochs=2, batch_size=10)
    model.save(tmp_path / "net.npz")
    other = bnkit.MLP.load(tmp_path / "net.npz", backend="numpy")
    assert other.config == model.config
    assert list(other.network.layers[1].renorm) == [3.0, math.inf]
    np.testing.assert_array_equal(other.predict(data[0]), model.predict(data[0]))
