"""Numbers at the ends of their range: what a dtype can store of y and the gradients is right, in every mode."""

from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}  # a few roundings of numbers near 1
# Powers of two of x, at which float32 holds no square of x, or float64 none, or gamma / std leaves the dtype.
POWERS = [("float32", -132), ("float32", 100), ("float32", -70), ("float64", 531), ("float64", -565), ("float64", 1000)]
LAYOUTS: dict[str, tuple[tuple[int, ...], Any]] = {
    "columns": ((99, 6), 1),
    "runs": ((5, 6, 7, 9), 1),
    "channels last": ((5, 7, 9, 6), -1),
    "replicas": ((3, 39, 6), (0, 2)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ghost": {"ghost": True},
    "mask": {"mask": True},
    "relu": {"activation": "relu"},
    "residual": {"activation": "relu", "with_residual": True},
}


def step(
    backend: Backend, x: Host, dy: Host, residual: Host, gamma: Host, beta: Host, axis: Any, **options: Any
) -> tuple[Host, ...]:
    """y, dx, dgamma and dbeta of a training step without eps."""
    if options.get("mask"):
        options["mask"] = backend.asarray(np.random.default_rng(3).random(x.shape) < 0.7)
    if options.get("ghost"):
        options["ghost"] = max(x.shape[1 if axis == (0, 2) else 0] // 3, 2)
    if options.pop("with_residual", False):
        options["residual"] = backend.asarray(residual)
    small = (backend.asarray(gamma), backend.asarray(beta))
    y, cache = bnkit.batch_norm(backend.asarray(x), *small, train=True, axis=axis, eps=0.0, **options)
    grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    return tuple(backend.to_numpy(a) for a in (y, grads.dx, grads.dgamma, grads.dbeta))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "power"), POWERS)
def test_a_training_step_is_that_of_the_same_numbers_near_1(
    dtype: str, power: int, layout: str, option: str, backend: Backend
) -> None:
    """A power of two changes no digit of x but where x is subnormal, so both are told what was stored."""
    (shape, axis), options = LAYOUTS[layout], OPTIONS[option]
    rng = np.random.default_rng(5)
    features = tuple(shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    drawn = [rng.normal(size=shape) for _ in range(3)] + [rng.uniform(low, 2, features) for low in (0.5, -1)]
    x, dy, residual, gamma, beta = (a.astype(dtype) for a in drawn)
    dy_power = power // 2  # so that dx, of size dy / x, is far from both ends
    x, dy = np.ldexp(x, power).astype(dtype), np.ldexp(dy, dy_power).astype(dtype)
    near = [np.ldexp(x.astype(float), -power), np.ldexp(dy.astype(float), -dy_power)]
    near += [a.astype(float) for a in (residual, gamma, beta)]
    numpy = bnkit.get_backend("numpy")
    if "activation" in options:  # no gradient arrives where rounding decides
        before = step(numpy, *near, axis, **{k: v for k, v in options.items() if k != "activation"})[0]
        dy, near[1] = (np.where(np.abs(before) < 1e-5, 0, a).astype(a.dtype) for a in (dy, near[1]))
    wanted = step(numpy, *near, axis, **options)
    got = step(backend, x, dy, residual, gamma, beta, axis, **options)
    powers = (0, dy_power - power, dy_power, dy_power)
    for name, array, want, by in zip(("y", "dx", "dgamma", "dbeta"), got, wanted, powers, strict=True):
        size = np.max(np.abs(want))  # sums of hundreds of terms, and two rows that lie close
        near_1 = np.ldexp(array.astype(float), -by)
        np.testing.assert_allclose(near_1, want, rtol=0, atol=10 * size * TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize(("gamma", "std", "x", "y"), [(1e36, 1e-4, 1e-30, 1e10), (1e-30, 1e15, 1e38, 1e-7)])
def test_inference_with_a_quotient_beyond_float32_gives_a_y_within(
    gamma: float, std: float, x: float, y: float, backend: Backend
) -> None:
    small = [np.full(3, value, np.float32) for value in (gamma, 0, 0, std**2)]
    given = np.outer([1, -1, 0.5, 0.0], np.ones(3)).astype(np.float32) * np.float32(x)
    dy = np.full_like(given, y / 1e8)
    arrays = [backend.asarray(a) for a in small]
    got, cache = bnkit.batch_norm(backend.asarray(given), *arrays, train=False, eps=0.0)
    dx = bnkit.batch_norm_backward(backend.asarray(dy if gamma < 1 else dy * 1e-36), cache).dx
    wide = given.astype(float) * (small[0].astype(float) / np.sqrt(small[3].astype(float)))
    # one rounding of y
    np.testing.assert_allclose(backend.to_numpy(got), wide, rtol=1e-7, atol=0)
    assert np.isclose(float(backend.to_numpy(got)[0, 0]), y, rtol=1e-5)
    want_dx = (dy if gamma < 1 else dy * 1e-36).astype(float) * (
        small[0].astype(float) / np.sqrt(small[3].astype(float))
    )
    np.testing.assert_allclose(backend.to_numpy(dx), want_dx, rtol=1e-7, atol=2.0**-149)


def test_a_constant_channel_gives_beta_although_gamma_over_std_overflows(backend: Backend) -> None:
    x = np.full((7, 2), 2.5, np.float32)
    beta = np.array([0.25, -3.0], np.float32)
    small = [backend.asarray(a) for a in (np.full(2, 1.2e38, np.float32), beta)]
    y, _ = bnkit.batch_norm(backend.asarray(x), *small, train=True, eps=0.1)
    np.testing.assert_array_equal(backend.to_numpy(y), np.broadcast_to(beta, x.shape))


@pytest.mark.parametrize(("dtype", "power"), [("float32", 110), ("float64", 531)])
def test_the_running_arrays_move_once_and_hold_inf_where_the_variance_is_more(
    dtype: str, power: int, backend: Backend
) -> None:
    near = np.random.default_rng(0).normal(1, 1, (101, 3))
    x = np.ldexp(near, power).astype(dtype)
    mean, var = (backend.asarray(a) for a in (np.zeros(3, dtype), np.ones(3, dtype)))
    bnkit.batch_norm(backend.asarray(x), None, None, mean, var, train=True, decay=0.75)
    moved = np.ldexp(backend.to_numpy(mean).astype(float), -power)
    # one rounding of float32, and the sums of 101 terms
    np.testing.assert_allclose(moved, 0.25 * np.ldexp(x.astype(float), -power).mean(axis=0), rtol=1e-6)
    assert np.isposinf(backend.to_numpy(var)).all()


@pytest.mark.parametrize("power", [531, -565])
@pytest.mark.parametrize("shape", [(101, 6), (5, 6, 7, 9)])
def test_a_channel_whose_squares_leave_float64_costs_the_others_no_bit(shape: tuple[int, ...], power: int) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, *shape))
    odd = x.copy()
    odd[:, 2] = np.ldexp(odd[:, 2], power)
    results = []
    for values in (x, odd):
        y, cache = bnkit.batch_norm(values, None, None, train=True, eps=0.0)
        results.append((y, bnkit.batch_norm_backward(dy, cache).dx))
    for ordinary, beside in zip(*results, strict=True):
        others = np.arange(6) != 2
        assert ordinary[:, others].tobytes() == beside[:, others].tobytes()


@pytest.mark.parametrize("backward", [False, True])
def test_results_over_what_they_are_made_of_are_right_too(backward: bool, backend: Backend) -> None:
    """y over x in inference and dx over dy, where the arithmetic of a kernel is too narrow."""
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(9, 4)).astype(np.float32) for _ in range(2))
    x *= np.float32(1e-25)
    small = [np.full(4, value, np.float32) for value in (1e20, 0.5, 0, 1e-38)]
    arrays = [backend.asarray(a) for a in small]
    there = backend.asarray(x.copy())
    want, cache = bnkit.batch_norm(there, *arrays, train=False, eps=0.0)
    if backward:
        dy *= np.float32(1e-20)
        want = bnkit.batch_norm_backward(backend.asarray(dy), cache).dx
        over = backend.asarray(dy.copy())
        got = bnkit.batch_norm_backward(over, cache, out=over).dx
    else:
        over = there
        got, _ = bnkit.batch_norm(over, *arrays, train=False, eps=0.0, out=over)
    assert got is over
    assert np.isfinite(backend.to_numpy(want)).all()
    np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(want))


def test_two_rows_whose_squares_vanish_are_normalized(backend: Backend) -> None:
    """Their sum is 0, and so are those of their squares, as if they were equal."""
    x = np.array([[1e-30], [-1e-30]], np.float32)
    y, _ = bnkit.batch_norm(backend.asarray(x), None, None, train=True, eps=0.0)
    # two roundings
    np.testing.assert_allclose(backend.to_numpy(y), [[1], [-1]], rtol=2.0**-23)


@pytest.mark.parametrize("option", [{"reduce": lambda a: a}, {"in_place": True}], ids=["reduce", "in_place"])
def test_a_variance_that_has_to_be_a_number_gives_beta_where_float64_does_not_hold_it(
    option: dict[str, Any], backend: Backend
) -> None:
    """The limit that the docstring names."""
    x = np.random.default_rng(0).normal(size=(9, 4)) * 1e160
    beta = np.array([0.5, -1.0, 2.0, 0.25])
    small = (backend.asarray(np.ones(4)), backend.asarray(beta))
    y, _ = bnkit.batch_norm(backend.asarray(x), *small, train=True, **option)
    np.testing.assert_array_equal(backend.to_numpy(y), np.broadcast_to(beta, x.shape))
