"""The NumPy backend's ops on the 4-D view against their formulas: moments, gradient sums, backward, and the loss."""

from typing import Any

import kernel_oracle as oracle
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_memory import is_untouched_around, memories, place, place_nan

import bnkit
from bnkit.reference import (
    BackwardArguments,
    GradientSumsArguments,
    InferenceArguments,
    MomentsArguments,
    TrainArguments,
)

Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
LIMIT = 50_000  # elements of a drawn tensor
AXES = (0, 2)  # of the view (groups, rows, channels, inner)
BACKEND = bnkit.get_backend("numpy")


@st.composite
def views(draw: Any, dtype: Any) -> tuple[Array, Array, np.random.Generator]:
    """x and dy as ops take them, at any multiple of the itemsize in memory, and what draws the rest."""
    rows = draw(st.integers(2, 3000) | st.integers(2, 40))
    inner = draw(st.sampled_from([1, 1, 2, 49]) | st.integers(1, 300))
    inner = min(inner, LIMIT // rows)
    channels = min(draw(st.integers(1, 400) | st.integers(1, 20)), max(LIMIT // (rows * inner), 1))
    groups = min(draw(st.sampled_from([1, 1, 2, 3])), max(LIMIT // (rows * inner * channels), 1))
    shape = (groups, rows, channels, inner)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    mean, std = draw(st.sampled_from([(0.5, 1.5), (1e4, 1.0), (-3.0, 1e-3)]))
    x, dy = (rng.normal(m, s, shape).astype(dtype) for m, s in ((mean, std), (0.2, 1.0)))
    whole = memories(4, dtype.itemsize, whole=True)
    return place(x, draw(whole)).array, place(dy, draw(whole)).array, rng


def small_arrays(x: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """gamma and beta"""
    shape, stored = (x.shape[0], x.shape[2]), np.float64 if x.dtype == np.float64 else np.float32
    return rng.uniform(-2, 2, shape).astype(stored), rng.uniform(-1, 1, shape).astype(stored)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_moments_are_those_of_the_formulas(dtype: Any, data: st.DataObject) -> None:
    x, _, _ = data.draw(views(dtype))
    count, mean, m2 = BACKEND.batch_norm_moments(MomentsArguments(x))
    wide = oracle.wide(x)
    n = x.shape[1] * x.shape[3]
    want_mean = wide.mean(axis=(1, 3), keepdims=True)
    want_m2 = ((wide - want_mean) ** 2).sum(axis=(1, 3))
    want_mean, lost = want_mean[:, 0, :, 0], oracle.rounding(dtype, n)
    # A float64, off by the rounding of that type and of the distances from the shift.
    mean_size = np.sqrt(want_m2 / n) + oracle.UNIT64 / oracle.unit(dtype) * np.abs(want_mean)
    oracle.assert_near(mean, oracle.near(want_mean, mean_size, np.float64, lost), "mean")
    oracle.assert_near(m2, oracle.near(want_m2, want_m2, np.float64, lost), "m2")
    np.testing.assert_array_equal(count, np.full(count.shape, n))
    assert {a.dtype for a in (count, mean, m2)} == {np.dtype("float64")}


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_gradient_sums_of_parts_make_the_backward_of_the_whole(
    dtype: Any, activation: str | None, data: st.DataObject
) -> None:
    """As ranks do it: each has some of the rows, and is told the sums over all of them."""
    x, dy, rng = data.draw(views(dtype))
    gamma, beta = small_arrays(x, rng)
    want = oracle.forward(x, gamma, beta, None, None, axes=AXES, train=True, activation=activation)
    dy[...] = oracle.away_from_the_kink(dy, want, activation)
    wanted = oracle.backward(dy, want, gamma, axes=AXES, train=True, activation=activation)
    mean = oracle.wide(x).mean(axis=(1, 3)).astype(float)
    rstd = want.rstd[:, 0, :, 0].astype(float)
    cut = data.draw(st.integers(0, x.shape[1]))
    parts = [tuple(np.ascontiguousarray(a[:, part]) for a in (dy, x)) for part in (slice(cut), slice(cut, None))]
    sums = [
        BACKEND.batch_norm_gradient_sums(GradientSumsArguments(*p, gamma, beta, mean, rstd, activation=activation))
        for p in parts
    ]
    both = (sums[0][0] + sums[1][0], sums[0][1] + sums[1][1])
    count = np.full(mean.shape, float(want.count))
    rest = (gamma, beta, mean, rstd, True, count, both, None, activation)
    grads = [BACKEND.batch_norm_backward(BackwardArguments(*p, *rest)) for p in parts]
    oracle.assert_near(np.concatenate([g.dx for g in grads], axis=1), wanted.dx, "dx")
    for part, own, g in zip((slice(cut), slice(cut, None)), sums, grads, strict=True):
        upstream, size = wanted.dresidual[:, part], want.size[:, part]
        dbeta, dgamma = upstream.sum(axis=(1, 3)), (upstream * want.x_hat[:, part]).sum(axis=(1, 3))
        sizes = np.abs(upstream).sum(axis=(1, 3)), (np.abs(upstream) * size).sum(axis=(1, 3))
        lost = oracle.rounding(dtype, want.count)
        for name, value, value_size, op_sum, gradient in zip(
            ("dy", "dy * x_hat"), (dbeta, dgamma), sizes, own, (g.dbeta, g.dgamma), strict=True
        ):
            assert (op_sum.dtype, gradient.dtype) == (np.dtype("float64"), gamma.dtype)
            oracle.assert_near(op_sum, oracle.near(value, value_size, np.float64, lost), f"sum of {name}")
            oracle.assert_near(gradient, oracle.near(value, value_size, gamma.dtype, lost), f"own gradient from {name}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_a_relu_after_a_residual_lets_the_same_through_in_every_backward(dtype: Any, data: st.DataObject) -> None:
    """`active`, by which the op tells its backward, with `out`, over dy, and in the sums alone."""
    x, dy, rng = data.draw(views(dtype))
    gamma, beta = small_arrays(x, rng)
    residual = place(rng.normal(size=x.shape).astype(dtype), data.draw(memories(4, dtype.itemsize, whole=True))).array
    train = data.draw(st.booleans())
    mean, var = (a.astype(gamma.dtype) for a in (0 * beta, gamma**2 + 0.5))
    options: dict[str, Any] = {"residual": residual, "activation": "relu"}
    want = oracle.forward(x, gamma, beta, mean, var, axes=AXES, train=train, **options)
    dy[...] = oracle.away_from_the_kink(dy, want, "relu")
    wanted = oracle.backward(dy, want, gamma, axes=AXES, train=train, activation="relu")
    out = place_nan(x, data.draw(memories(4, dtype.itemsize, whole=True)))
    rest: dict[str, Any] = {"train": train, "activation": "relu", "residual": True}
    if train:
        made = BACKEND.batch_norm_train(
            TrainArguments(x, gamma, beta, None, None, 0.9, 1e-5, 1, out=out.array, **options)
        )
        y, active, statistics = made.y, made.active, (made.moments.mean, made.rstd)
        rest["count"] = made.moments.count
    else:
        y, active = BACKEND.batch_norm_inference(
            InferenceArguments(x, gamma, beta, mean, var, 1e-5, out=out.array, **options)
        )
        statistics = (mean.astype(float), 1 / np.sqrt(var.astype(float) + 1e-5))
    rest["active"] = active
    assert y is out.array
    assert is_untouched_around(out)
    oracle.assert_near(y, want.y, "y")
    sums = BACKEND.batch_norm_gradient_sums(
        GradientSumsArguments(dy, x, gamma, beta, *statistics, activation="relu", active=active)
    )
    over = place(dy, data.draw(memories(4, dtype.itemsize, whole=True)))
    back = BackwardArguments(dy, x, gamma, beta, *statistics, **rest)
    for args in (back, back._replace(dy=over.array, out=over.array)):
        grads = BACKEND.batch_norm_backward(args)
        oracle.assert_near(grads.dx, wanted.dx, "dx")
        for got, total, name in zip(grads[1:3], reversed(sums), ("dgamma", "dbeta"), strict=True):
            oracle.assert_near(got, getattr(wanted, name), name)
            oracle.assert_near(total, getattr(wanted, name), f"sum for {name}")
        np.testing.assert_array_equal(oracle.wide(grads.dresidual), wanted.dresidual)
    assert is_untouched_around(over)


@st.composite
def losses(draw: Any, dtype: Any) -> tuple[Array, Array, Array]:
    """Logits, a target of labels or weights, and the weights it stands for."""
    leading = draw(st.sampled_from([(), (), (1,), (3,), (2, 2)]))
    rows, classes = draw(st.integers(1, 130)), draw(st.sampled_from([1, 2, 3, 10, 16, 17]) | st.integers(1, 1000))
    rows = min(rows, max(30_000 // classes, 1))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    logits = rng.normal(size=(*leading, rows, classes)) * draw(st.sampled_from([0.01, 1.0, 30.0, 1000.0]))
    target_shape = draw(st.sampled_from([(rows,), (*leading, rows)]))  # shared, or each its own
    labels = rng.integers(0, classes, target_shape)
    weights = np.eye(classes)[labels]
    if draw(st.booleans()):
        labels = labels.astype(draw(st.sampled_from(["int64", "int32", "uint8"])) if classes < 256 else "int64")
        target = labels
    else:
        stored = draw(st.sampled_from(["float32", "float64"]))
        weights = weights if draw(st.booleans()) else rng.random(weights.shape)
        target = weights = weights.astype(stored)
    if draw(st.booleans()):  # impossible classes, but none that is wanted
        impossible = (rng.random(logits.shape) < 0.3) & (np.broadcast_to(weights, logits.shape) == 0)
        logits[impossible] = -np.inf
    placed = place(logits.astype(dtype), draw(memories(logits.ndim, dtype.itemsize, whole=True)))
    return placed.array, target, weights


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_the_loss_and_its_gradient_are_those_of_the_formulas(dtype: Any, data: st.DataObject) -> None:
    logits, target, weights = data.draw(losses(dtype))
    want_loss, want_gradient = oracle.softmax_cross_entropy(logits, weights)
    loss, gradient = BACKEND.softmax_cross_entropy(logits, target)
    oracle.assert_near(loss, want_loss, "loss")
    oracle.assert_near(gradient, want_gradient, "gradient")
    assert (np.asarray(loss).dtype, gradient.dtype) == (np.dtype("float64"), dtype)


def test_a_loss_without_a_possible_class_or_of_nan_is_nan_in_its_row_alone() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 33, 37)).astype(np.float32)
    labels = np.arange(33) % 37
    clean_loss, clean = BACKEND.softmax_cross_entropy(logits, labels)
    logits[1, 4], logits[1, 7, 36] = -np.inf, np.nan
    loss, gradient = BACKEND.softmax_cross_entropy(logits, labels)
    assert np.isnan(loss[1])
    assert np.isnan(gradient[1, [4, 7]]).all()
    gradient[1, [4, 7]] = clean[1, [4, 7]]
    np.testing.assert_array_equal(gradient, clean)
    np.testing.assert_array_equal(loss[[0, 2]], clean_loss[[0, 2]])


def test_an_impossible_label_costs_infinity() -> None:
    logits = np.zeros((1, 2, 20), np.float32)
    logits[0, 1, 5] = -np.inf
    loss, gradient = BACKEND.softmax_cross_entropy(logits, np.array([3, 5]))
    assert np.isposinf(loss[0])
    assert np.isfinite(gradient).all()
