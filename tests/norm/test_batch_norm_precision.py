"""Exactness: large means, constant input, extreme values, and the same bits twice."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
IMAGES = (100, 7, 16, 20)


def drawn(layout: str) -> tuple[Host, Host, int | tuple[int, ...]]:
    """x of mean 1e4 and std 1, dy, and the axis."""
    rng = np.random.default_rng(11)
    shape = (200_000, 3) if layout == "2-D" else IMAGES
    x, dy = rng.normal(1e4, 1, shape).astype(np.float32), rng.normal(0, 1, shape).astype(np.float32)
    if layout == "NHWC":
        return np.moveaxis(x, 1, -1).copy(), np.moveaxis(dy, 1, -1).copy(), -1
    if layout == "channels-last strides":
        return (*(np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) for a in (x, dy)), 1)
    return x, dy, 1


@pytest.mark.parametrize("layout", ["2-D", "NCHW", "NHWC", "channels-last strides"])
@pytest.mark.parametrize("train", [True, False])
def test_a_mean_of_1e4_costs_float32_nothing(layout: str, train: bool, backend: Backend) -> None:
    x, dy, axis = drawn(layout)
    rng = np.random.default_rng(12)
    channels = x.shape[axis] if isinstance(axis, int) else 1
    small = [rng.uniform(low, high, channels) for low, high in ((0.5, 1), (-1, 1), (9999.5, 10000.5), (0.9, 1.1))]
    small = [a.astype(np.float32) for a in small]
    wide = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    gamma, beta, mean, var = (np.expand_dims(a.astype(np.longdouble), wide) for a in small)
    x_wide, dy_wide = x.astype(np.longdouble), dy.astype(np.longdouble)
    if train:
        mean = x_wide.mean(axis=wide, keepdims=True)
        var = ((x_wide - mean) ** 2).mean(axis=wide, keepdims=True)
    rstd = 1 / np.sqrt(var + 1e-5)
    x_hat = (x_wide - mean) * rstd
    want_y = (gamma * x_hat + beta).astype(float)
    through = 0
    if train:
        through = dy_wide.mean(axis=wide, keepdims=True) + x_hat * (dy_wide * x_hat).mean(axis=wide, keepdims=True)
    want_dx = ((dy_wide - through) * rstd * gamma).astype(float)
    y, cache = bnkit.batch_norm(backend.asarray(x), *(backend.asarray(a.copy()) for a in small), train=train, axis=axis)
    dx = bnkit.batch_norm_backward(backend.asarray(dy), cache).dx
    # the promise of the design: |y| < 8 is rounded by 2.4e-7 at most, so a handful of float32 roundings at the end
    np.testing.assert_allclose(backend.to_numpy(y), want_y, rtol=0, atol=2e-6)
    np.testing.assert_allclose(backend.to_numpy(dx), want_dx, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduce", [None, lambda a: a], ids=["alone", "with reduce"])
def test_a_constant_input_gives_beta_exactly(dtype: str, reduce: Any, backend: Backend) -> None:
    constants = np.array([0.1, -3.7, 1e4 + 1 / 3, 1e-30, 12345.678], dtype)
    beta = np.array([0.0, 0.3, -1.1, 2.0, 1e-3], dtype)
    gamma = np.full(5, 1.7, dtype)
    for rows in (2, 3, 7, 10, 24, 100, 1009):
        x = np.broadcast_to(constants, (rows, 5)).copy()
        small = [backend.asarray(a) for a in (gamma, beta)]
        y, _ = bnkit.batch_norm(backend.asarray(x), *small, train=True, reduce=reduce)
        np.testing.assert_array_equal(backend.to_numpy(y), np.broadcast_to(beta, x.shape), err_msg=f"{rows} rows")


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_a_constant_half_input_gives_beta_rounded(dtype: Any) -> None:
    x = np.full((77, 3), 3.14159).astype(dtype)
    beta = np.array([0.1, -0.7, 0.0], np.float32)
    y, _ = bnkit.batch_norm(x, None, beta, train=True)
    assert y.tobytes() == np.broadcast_to(beta.astype(dtype), x.shape).tobytes()


def test_values_of_1e30_give_the_right_y_and_an_infinite_running_variance(backend: Backend) -> None:
    small = np.random.default_rng(1).normal(size=(101, 4)).astype(np.float32)
    x = small * np.float32(1e30)
    mean, var = (backend.asarray(a) for a in (np.zeros(4, np.float32), np.ones(4, np.float32)))
    y, cache = bnkit.batch_norm(backend.asarray(x), None, None, mean, var, train=True)
    wide = x.astype(float)
    want = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    # one rounding to float32 of values below 4
    np.testing.assert_allclose(backend.to_numpy(y), want, rtol=0, atol=3e-7)
    assert np.isposinf(backend.to_numpy(var)).all()
    np.testing.assert_allclose(backend.to_numpy(mean), 0.1 * wide.mean(axis=0), rtol=1e-6)
    dx = bnkit.batch_norm_backward(backend.asarray(small), cache).dx
    assert np.isfinite(backend.to_numpy(dx)).all()


def test_tiny_values_are_normalized_by_eps(backend: Backend) -> None:
    x = np.random.default_rng(1).normal(size=(101, 4)).astype(np.float32) * np.float32(1e-30)
    y, _ = bnkit.batch_norm(backend.asarray(x), None, None, train=True)
    want = (x.astype(float) - x.astype(float).mean(axis=0)) / np.sqrt(1e-5)
    np.testing.assert_allclose(backend.to_numpy(y), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("option", ["plain", "mask", "ghost", "residual and relu"])
def test_the_same_call_gives_the_same_bits(option: str, backend: Backend) -> None:
    rng = np.random.default_rng(2)
    x, dy, residual = (backend.asarray(rng.normal(size=(1000, 33)).astype(np.float32)) for _ in range(3))
    options: dict[str, Any] = {
        "plain": {},
        "mask": {"mask": backend.asarray(rng.random((1000, 33)) > 0.3)},
        "ghost": {"ghost": 64},
        "residual and relu": {"residual": residual, "activation": "relu"},
    }[option]
    results = []
    for _ in range(2):
        running = [backend.asarray(a) for a in (np.zeros(33, np.float32), np.ones(33, np.float32))]
        y, cache = bnkit.batch_norm(x, None, None, *running, train=True, **options)
        arrays = (y, *running, bnkit.batch_norm_backward(dy, cache).dx)
        results.append([backend.to_numpy(a).tobytes() for a in arrays])
    assert results[0] == results[1]
