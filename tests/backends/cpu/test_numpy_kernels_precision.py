"""Large means, constant channels, huge and tiny values, many rows, and a spread of sizes, against the formulas."""

from collections.abc import Callable
from typing import Any

import kernel_oracle as oracle
import ml_dtypes
import numpy as np
import pytest

import bnkit

Array = np.ndarray[Any, Any]


def agrees(x: Array, axis: int = 1, **at_most: float) -> None:
    """Forward, running arrays and backward are those of the formulas; `at_most`: what y and dx may be off by."""
    axes = (axis % x.ndim,)
    rng = np.random.default_rng(7)
    stored = np.float64 if x.dtype == np.float64 else np.float32
    dy = rng.normal(size=x.shape).astype(x.dtype)
    small = [rng.uniform(low, high, x.shape[axis]).astype(stored) for low, high in ((0.5, 1), (-1, 1), (-1, 1), (1, 2))]
    want = oracle.forward(x, *small, axes=axes, train=True)
    wanted = oracle.backward(dy, want, small[0], axes=axes, train=True)
    y, cache = bnkit.batch_norm(x, *small, train=True, axis=axis)
    grads = bnkit.batch_norm_backward(dy, cache)
    label = f"{x.dtype} {x.shape}"
    for name, got, near in (("y", y, want.y), ("dx", grads.dx, wanted.dx)):
        oracle.assert_near(got, near, f"{name} of {label}")
        if name in at_most:
            worst = float(np.abs(oracle.wide(got) - near.value).max())
            assert worst <= at_most[name], f"{name} of {label} is off by {worst:.3g}"
    oracle.assert_near(grads.dgamma, wanted.dgamma, f"dgamma of {label}")
    oracle.assert_near(grads.dbeta, wanted.dbeta, f"dbeta of {label}")
    oracle.assert_near(small[2], want.running_mean, f"running_mean of {label}")
    oracle.assert_near(small[3], want.running_var, f"running_var of {label}")


# inner: of columns, runs shorter than a vector, as long, a little longer, and longer than what is summed at once
@pytest.mark.parametrize("inner", [1, 2, 5, 15, 16, 17, 49, 300, 5000])
@pytest.mark.parametrize("mean", [1e4, 1e6])
def test_a_large_mean_costs_float32_nothing(mean: float, inner: int) -> None:
    """y and dx within 2e-6 of the formulas on the stored x.

    At 1e6 those are multiples of 1/16: what the spread loses is lost before the call. Their distances from a value
    near the mean are exact, and as few as those of any other x.
    """
    rows = max(60_000 // (4 * inner), 3)
    x = np.random.default_rng(inner).normal(mean, 1, (rows, 4, inner)).astype(np.float32)
    agrees(x, y=2e-6, dx=2e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_two_hundred_thousand_rows_cost_float32_nothing(channels: int) -> None:
    x = np.random.default_rng(channels).normal(1e4, 1, (200_000, channels)).astype(np.float32)
    agrees(x, y=2e-6, dx=2e-6)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("tail", [(), (3,), (7, 7), (33, 40)], ids=str)
def test_a_constant_channel_gives_beta_exactly(dtype: Any, tail: tuple[int, ...]) -> None:
    dtype = np.dtype(dtype)
    constants = np.array([0.1, -3.7, 1234.567, 1e-4, -65000.0, 0.0, 1 / 3]).astype(dtype)
    stored = np.float64 if dtype == np.float64 else np.float32
    beta, gamma = np.array([0, 0.3, -1.1, 2, 1e-3, -0.7, 5], stored), np.full(7, 1.7, stored)
    for rows in (2, 3, 17, 100, 1009):
        x = np.empty((rows, 7, *tail), dtype)
        x[...] = constants.reshape(1, 7, *(1 for _ in tail))
        y, cache = bnkit.batch_norm(x, gamma, beta, train=True)
        want = np.broadcast_to(beta.astype(dtype).reshape(1, 7, *(1 for _ in tail)), x.shape)
        assert y.tobytes() == want.tobytes(), f"{rows} rows"
        assert np.isfinite(oracle.wide(bnkit.batch_norm_backward(x, cache).dx)).all()


@pytest.mark.parametrize("shape", [(101, 40), (5, 4, 301)])
def test_values_of_1e30_are_normalized(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=shape) * 1e30).astype(np.float32)
    dy = (rng.normal(size=shape) + x / 1e30).astype(np.float32)  # whose gradient through the variance is no small one
    running = [np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)]
    want = oracle.forward(x, None, None, None, None, axes=(1,), train=True)
    y, cache = bnkit.batch_norm(x, None, None, *running, train=True)
    oracle.assert_near(y, want.y, "y")
    assert np.isposinf(running[1]).all()
    dx = bnkit.batch_norm_backward(dy, cache).dx
    oracle.assert_near(dx, oracle.backward(dy, want, None, axes=(1,), train=True).dx, "dx")


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e-41), ("float32", 1e-30), ("float64", 1e-310)])
@pytest.mark.parametrize("shape", [(101, 40), (5, 4, 301)])
def test_tiny_and_subnormal_values_are_not_flushed(dtype: str, scale: float, shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(1).normal(size=shape) * scale).astype(dtype)
    wide = oracle.wide(x)
    over = tuple(a for a in range(x.ndim) if a != 1)
    want = (wide - wide.mean(axis=over, keepdims=True)) / np.sqrt(np.longdouble(1e-5))
    y, _ = bnkit.batch_norm(x, None, None, train=True)
    # The mean is subtracted as the nearest x there may be, which for subnormals is as much as half of their step.
    step = float(np.finfo(dtype).smallest_subnormal)
    np.testing.assert_allclose(oracle.wide(y), want, rtol=1e-6, atol=400 * step)
    assert np.abs(oracle.wide(y)).max() > 100 * scale


def spread() -> list[int]:
    """Numbers around the powers of two from 2**9 to 2**19, so that every threshold that a kernel has lies between."""
    return [2**k + away for k in range(9, 20) for away in (-1, 1)]


@pytest.mark.parametrize(
    "shape_of",
    [
        lambda n: (n // 7, 7),
        lambda n: (n, 1),
        lambda n: (int(n**0.5), int(n**0.5) + 1),
        lambda n: (3, n // 3),
        lambda n: (max(n // 1617, 2), 33, 49),
        lambda n: (n // 15, 3, 5),
        lambda n: (3, 2, n // 6),
        lambda n: (1, 1, n),
    ],
    ids=["tall", "one column", "square", "wide", "images", "short runs", "long runs", "one run"],
)
def test_every_size_agrees_with_the_formulas(shape_of: Callable[[int], tuple[int, ...]]) -> None:
    for n in spread():
        shape = shape_of(n)
        agrees(np.random.default_rng(n).normal(0.5, 1.5, shape).astype(np.float32))
