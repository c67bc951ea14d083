"""NaN and infinities stay in their channel, in every layout, wherever in it they stand; the others keep their bits."""

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bnkit

Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]


def channels_last_strides(x: Array) -> Array:
    return np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)


# Columns within a vector and in its tail, tall ones, runs shorter and longer than a vector, pieces, groups.
LAYOUTS: list[tuple[tuple[int, ...], Any, Callable[[Array], Array]]] = [
    ((37, 41), 1, np.copy),
    ((7, 83), 1, np.asfortranarray),
    ((20_011, 5), 1, np.copy),
    ((11, 5, 3, 3), 1, np.copy),
    ((6, 5, 7, 9), 1, channels_last_strides),
    ((6, 7, 9, 19), -1, np.copy),
    ((2, 2, 70_001), 1, np.copy),
    ((2, 53, 19), (0, 2), np.copy),
    ((2, 13, 5, 31), (0, 2), np.copy),
]
NAMES = ["columns", "Fortran", "tall", "short runs", "strides", "last", "long runs", "replicas", "grouped runs"]
in_every_layout = pytest.mark.parametrize(("shape", "axis", "laid"), LAYOUTS, ids=NAMES)
of_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def data(shape: tuple[int, ...], axis: Any, dtype: Any) -> tuple[dict[str, Array], tuple[int, ...]]:
    axes = tuple(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    rng, small = np.random.default_rng(shape), tuple(shape[a] for a in axes)
    stored = np.float64 if dtype == np.float64 else np.float32
    arrays = {name: rng.normal(0.5, 1.5, shape).astype(dtype) for name in ("x", "dy", "residual")}
    arrays |= {name: rng.uniform(0.5, 2, small).astype(stored) for name in ("gamma", "beta", "mean", "var")}
    return arrays, axes


def spoiled(shape: tuple[int, ...], axes: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """Where something bad is put, and what selects all of its channel: the first one, one in the middle and the last.

    The places are the first and last of the channel, and some between, as where samples of it may be looked at.
    """
    over = [a for a in range(len(shape)) if a not in axes]
    for along in (0, 0.5, 1):
        where: list[Any] = [slice(None)] * len(shape)
        for a in axes:
            where[a] = int(along * (shape[a] - 1))
        channel = tuple(where)
        for share in (0, 0.25, 0.51, 1):
            place = list(channel)
            for a in over:
                place[a] = int(share * (shape[a] - 1))
            yield tuple(place), channel


def run(
    arrays: dict[str, Array], laid: Callable[[Array], Array], axis: Any, train: bool, **options: Any
) -> list[Array]:
    """y, dx, running_mean, running_var, dgamma, dbeta"""
    running = [arrays["mean"].copy(), arrays["var"].copy()]
    if "residual" in options:
        options["residual"] = laid(options["residual"])
    given = (laid(arrays["x"]), arrays["gamma"], arrays["beta"], *running)
    y, cache = bnkit.batch_norm(*given, train=train, axis=axis, **options)
    grads = bnkit.batch_norm_backward(laid(arrays["dy"]), cache)
    return [np.asarray(a) for a in (y, grads.dx, *running, grads.dgamma, grads.dbeta)]


def same_elsewhere(got: list[Array], clean: list[Array], channel: tuple[Any, ...], axes: tuple[int, ...]) -> None:
    small = tuple(channel[a] for a in axes)
    for i, (a, b) in enumerate(zip(got, clean, strict=True)):
        kept = np.ones(b.shape, bool)
        kept[channel if i < 2 else small] = False
        assert a[kept].tobytes() == b[kept].tobytes(), f"result {i} of another channel has changed"


@in_every_layout
@of_every_dtype
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_bad_value_of_x_spoils_all_of_its_channel_in_training(
    shape: tuple[int, ...], axis: Any, laid: Callable[[Array], Array], dtype: Any, activation: str | None
) -> None:
    arrays, axes = data(shape, axis, dtype)
    clean = run(arrays, laid, axis, True, activation=activation)
    for i, (place, channel) in enumerate(spoiled(shape, axes)):
        x = arrays["x"].copy()
        x[place] = (np.nan, np.inf, -np.inf)[i % 3]
        got = run(arrays | {"x": x}, laid, axis, True, activation=activation)
        same_elsewhere(got, clean, channel, axes)
        small = tuple(channel[a] for a in axes)
        y, dx, mean, var, dgamma, _ = (a[channel if j < 2 else small] for j, a in enumerate(got))
        assert np.isnan(y).all()
        assert np.isnan(dx).all()
        assert not np.isfinite([mean, var, dgamma]).any()


@in_every_layout
@of_every_dtype
def test_a_bad_value_of_dy_spoils_the_gradients_of_its_channel_and_no_more(
    shape: tuple[int, ...], axis: Any, laid: Callable[[Array], Array], dtype: Any
) -> None:
    arrays, axes = data(shape, axis, dtype)
    clean = {train: run(arrays, laid, axis, train) for train in (True, False)}
    for place, channel in spoiled(shape, axes):
        dy = arrays["dy"].copy()
        dy[place] = np.nan
        for train in (True, False):
            got = run(arrays | {"dy": dy}, laid, axis, train)
            same_elsewhere(got, clean[train], channel, axes)
            small = tuple(channel[a] for a in axes)
            assert np.isnan([got[4][small], got[5][small]]).all()
            for j in (0, 2, 3):  # the forward knows nothing of dy
                assert got[j].tobytes() == clean[train][j].tobytes()
            hit = np.zeros(shape, bool)
            hit[channel if train else place] = True  # constants carry nothing over
            np.testing.assert_array_equal(np.isnan(got[1]), hit)
            assert got[1][~hit].tobytes() == clean[train][1][~hit].tobytes()


@in_every_layout
@of_every_dtype
@pytest.mark.parametrize("activation", [None, "relu"])
def test_in_inference_and_in_a_residual_a_nan_stays_where_it_is(
    shape: tuple[int, ...], axis: Any, laid: Callable[[Array], Array], dtype: Any, activation: str | None
) -> None:
    arrays, axes = data(shape, axis, dtype)
    for name, train in (("x", False), ("residual", False), ("residual", True)):
        options = {"activation": activation}
        clean = run(arrays, laid, axis, train, residual=arrays["residual"], **options)[0]
        for place, _ in spoiled(shape, axes):
            bad = arrays[name].copy()
            bad[place] = np.nan
            spoiled_arrays = arrays | {name: bad}
            y = run(spoiled_arrays, laid, axis, train, residual=spoiled_arrays["residual"], **options)[0]
            hit = np.zeros(shape, bool)
            hit[place] = True
            np.testing.assert_array_equal(np.isnan(y), hit)
            assert y[~hit].tobytes() == clean[~hit].tobytes()


@in_every_layout
@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_a_bad_parameter_spoils_its_channel_alone(
    shape: tuple[int, ...], axis: Any, laid: Callable[[Array], Array], name: str
) -> None:
    arrays, axes = data(shape, axis, np.dtype("float32"))
    clean = run(arrays, laid, axis, True)
    for _, channel in spoiled(shape, axes):
        bad = arrays[name].copy()
        bad[tuple(channel[a] for a in axes)] = np.nan
        got = run(arrays | {name: bad}, laid, axis, True)
        same_elsewhere(got, clean, channel, axes)
        assert np.isnan(got[0][channel]).all()
        assert np.isnan(got[1][channel]).all() == (name == "gamma")
