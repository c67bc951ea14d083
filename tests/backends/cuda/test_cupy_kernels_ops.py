"""The other CUDA kernels, executed on the CPU: moments, sums of parts, bits, the loss and uniforms."""

from typing import Any

import kernel_oracle as oracle
import ml_dtypes
import numpy as np
import pytest
from cuda_host.host_backend import DEVICES, TWO_READS, needs_compiler, ops_on
from cuda_host.schedules import same_in_every_schedule

import bnkit
from bnkit.reference import BackwardArguments, GradientSumsArguments, MomentsArguments, TrainArguments, unpack_bits

pytestmark = needs_compiler

Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
of_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@of_every_dtype
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 37, 72, 1), (1, 2200, 8, 1), (2, 5, 3, 49)], ids=str)
def test_moments_are_those_of_the_formulas(shape: tuple[int, ...], dtype: Any) -> None:
    x = np.random.default_rng(shape).normal(50, 2, shape).astype(dtype)
    count, mean, m2 = ops_on(TWO_READS).batch_norm_moments(MomentsArguments(x))
    wide, n = oracle.wide(x), shape[1] * shape[3]
    want = wide.mean(axis=(1, 3), keepdims=True)
    want_m2 = ((wide - want) ** 2).sum(axis=(1, 3))
    lost = oracle.rounding(dtype, n)
    # A float64, off by the rounding of that type and of the distances from the shift.
    size = np.sqrt(want_m2 / n) + oracle.UNIT64 / oracle.unit(dtype) * np.abs(want[:, 0, :, 0])
    oracle.assert_near(mean, oracle.near(want[:, 0, :, 0], size, np.float64, lost), "mean")
    oracle.assert_near(m2, oracle.near(want_m2, want_m2, np.float64, lost), "m2")
    np.testing.assert_array_equal(count, np.full(count.shape, n))
    assert {a.dtype for a in (count, mean, m2)} == {np.dtype("float64")}


@of_every_dtype
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", [(2, 37, 13, 1), (1, 600, 2, 32)], ids=str)
def test_gradient_sums_of_parts_make_the_backward_of_the_whole(
    shape: tuple[int, ...], activation: str | None, dtype: Any
) -> None:
    """As ranks do it: each has some of the rows, and is told the sums over all of them."""
    ops, rng = ops_on(TWO_READS), np.random.default_rng(shape)
    x, dy = (rng.normal(m, 1, shape).astype(dtype) for m in (2, 0.3))
    stored = np.float64 if dtype == np.float64 else np.float32
    gamma, beta = (rng.uniform(0.5, 2, (shape[0], shape[2])).astype(stored) for _ in range(2))
    want = oracle.forward(x, gamma, beta, None, None, axes=(0, 2), train=True, activation=activation)
    dy[...] = oracle.away_from_the_kink(dy, want, activation)
    wanted = oracle.backward(dy, want, gamma, axes=(0, 2), train=True, activation=activation)
    statistics = (oracle.wide(x).mean(axis=(1, 3)).astype(float), want.rstd[:, 0, :, 0].astype(float))
    parts = [tuple(np.ascontiguousarray(a[:, part]) for a in (dy, x)) for part in (slice(11), slice(11, None))]
    small = (gamma, beta, *statistics)
    sums = [ops.batch_norm_gradient_sums(GradientSumsArguments(*p, *small, activation=activation)) for p in parts]
    both = (sums[0][0] + sums[1][0], sums[0][1] + sums[1][1])
    rest = (True, np.full(gamma.shape, float(want.count)), both, None, activation)
    grads = [ops.batch_norm_backward(BackwardArguments(*p, *small, *rest)) for p in parts]
    oracle.assert_near(np.concatenate([g.dx for g in grads], axis=1), wanted.dx, "dx")
    oracle.assert_near(both[0], wanted.dbeta, "the sum of dy")
    oracle.assert_near(both[1], wanted.dgamma, "the sum of dy * x_hat")
    for own, g in zip(sums, grads, strict=True):
        np.testing.assert_array_equal(g.dbeta, own[0].astype(stored))
        np.testing.assert_array_equal(g.dgamma, own[1].astype(stored))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(2, 37, 13, 1), (1, 2200, 8, 1), (2, 5, 3, 49), (1, 600, 2, 32)], ids=str)
def test_the_reference_reads_the_bits_of_the_kernels(shape: tuple[int, ...], dtype: str, device: str) -> None:
    """As where ranks train without a mask in the op, and come back with one."""
    ops, rng = ops_on(DEVICES[device]), np.random.default_rng(shape)
    x, dy, residual = (rng.normal(size=shape).astype(dtype) for _ in range(3))
    none = (None, None, None, None)
    made = ops.batch_norm_train(TrainArguments(x, *none, 0.9, 1e-5, 1, residual=residual, activation="relu"))
    given: tuple[Any, ...] = (dy, x, None, None, made.moments.mean, made.rstd)
    gate: dict[str, Any] = {"activation": "relu", "active": made.active}
    mask = np.ones(shape, bool)
    args = BackwardArguments(*given, True, made.moments.count, residual=True, **gate)
    kernel, masked = (ops.batch_norm_backward(a) for a in (args, args._replace(mask=mask)))
    np.testing.assert_array_equal(masked.dresidual, kernel.dresidual)
    of_sums = GradientSumsArguments(*given, **gate)
    kernel_sums, sums = (ops.batch_norm_gradient_sums(a) for a in (of_sums, of_sums._replace(mask=mask)))
    # A thread's own sums are float32.
    np.testing.assert_allclose(sums[0], kernel_sums[0], rtol=1e-5)
    flags = made.y > 0
    np.testing.assert_array_equal(unpack_bits(np, ops._reference_bits(made.active, x), shape), flags)


@of_every_dtype
@pytest.mark.parametrize(("leading", "rows", "classes"), [((), 9, 10), ((3,), 33, 37), ((2, 2), 5, 1), ((), 1, 300)])
@pytest.mark.parametrize("kind", ["labels", "weights", "shared labels", "shared weights"])
def test_the_loss_and_its_gradient_are_those_of_the_formulas(
    leading: tuple[int, ...], rows: int, classes: int, kind: str, dtype: Any
) -> None:
    rng = np.random.default_rng((rows, classes))
    logits = (rng.normal(size=(*leading, rows, classes)) * 30).astype(dtype)
    labels = rng.integers(0, classes, (rows,) if "shared" in kind else (*leading, rows))
    weights = np.eye(classes)[labels] if "labels" in kind else rng.random((*labels.shape, classes))
    target = labels.astype(np.int32) if "labels" in kind else weights.astype(np.float32)
    if "weights" in kind:
        weights = target
    want_loss, want_gradient = oracle.softmax_cross_entropy(logits, weights)
    loss, gradient = ops_on(TWO_READS).softmax_cross_entropy(logits, target)
    oracle.assert_near(loss, want_loss, "loss")
    oracle.assert_near(gradient, want_gradient, "gradient")
    assert (loss.dtype, gradient.dtype) == (np.dtype("float64"), dtype)


def test_a_loss_without_a_possible_class_or_of_nan_is_nan_in_its_row_alone() -> None:
    ops = ops_on(TWO_READS)
    logits = np.random.default_rng(0).normal(size=(3, 33, 37)).astype(np.float32)
    labels = np.arange(33) % 37
    clean_loss, clean = ops.softmax_cross_entropy(logits, labels)
    logits[1, 4], logits[1, 7, 36] = -np.inf, np.nan
    loss, gradient = ops.softmax_cross_entropy(logits, labels)
    assert np.isnan(loss[1])
    assert np.isnan(gradient[1, [4, 7]]).all()
    gradient[1, [4, 7]] = clean[1, [4, 7]]
    np.testing.assert_array_equal(gradient, clean)
    np.testing.assert_array_equal(loss[[0, 2]], clean_loss[[0, 2]])


def test_an_impossible_label_costs_infinity() -> None:
    logits = np.zeros((1, 2, 20), np.float32)
    logits[0, 1, 5] = -np.inf
    loss, gradient = ops_on(TWO_READS).softmax_cross_entropy(logits, np.array([3, 5]))
    assert np.isposinf(loss[0])
    assert np.isfinite(gradient).all()


def test_the_loss_has_the_same_bits_in_every_schedule() -> None:
    ops, rng = ops_on(TWO_READS), np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 33, 37)).astype(np.float32), rng.integers(0, 37, 33)
    same_in_every_schedule(lambda: ops.softmax_cross_entropy(logits, labels))


@pytest.mark.slow
def test_no_thread_of_the_loss_and_the_uniforms_reads_what_another_one_writes() -> None:
    ops = ops_on(TWO_READS, checked=True)
    ops.softmax_cross_entropy(np.ones((3, 33, 37), np.float32), np.arange(33))
    ops.uniform((1, 2, 3), (1025,))


@pytest.mark.parametrize("shape", [(1,), (4,), (7, 3), (1025,), (0,), ()], ids=str)
@pytest.mark.parametrize("key", [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**64 - 1), (12345, 7, 2**33 + 5)])
def test_uniforms_are_those_of_every_backend_bit_for_bit(key: tuple[int, int, int], shape: tuple[int, ...]) -> None:
    drawn = ops_on(TWO_READS).uniform(key, shape)
    assert drawn.shape == shape
    np.testing.assert_array_equal(drawn, bnkit.get_backend("numpy").uniform(key, shape))


def test_each_replica_draws_by_its_own_seed() -> None:
    ops = ops_on(TWO_READS)
    key = ([3, 2**40, 3], 1, 9)
    np.testing.assert_array_equal(ops.uniform(key, (3, 5, 7)), bnkit.get_backend("numpy").uniform(key, (3, 5, 7)))
    assert ops.launches == [("uniform", False)] * 3
