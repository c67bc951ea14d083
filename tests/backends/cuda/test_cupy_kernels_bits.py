"""The bits of the CUDA kernels, executed on the CPU: the same in every schedule and place in memory; and NaN."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_host.host_backend import DEVICES, TWO_READS, OverHost, needs_compiler, ops_on
from cuda_host.schedules import same_in_every_schedule
from kernel_memory import Memory, is_untouched_around, place, place_nan

from bnkit.reference import BackwardArguments, InferenceArguments, MomentsArguments, TrainArguments

pytestmark = needs_compiler

Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
# Tiles that are cut into parts, in both layouts, and a last tile that is not full.
SHAPES = [(1, 2200, 8, 1), (1, 4800, 8, 1), (1, 600, 2, 32), (2, 19, 72, 1)]
in_both_ways = pytest.mark.parametrize("device", DEVICES)
of_every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def inputs(shape: tuple[int, ...], dtype: Any) -> list[Array]:
    """x, dy, the residual, gamma and beta"""
    rng, stored = np.random.default_rng(shape), np.float64 if dtype == np.float64 else np.float32
    large = [rng.normal(2, 3, shape).astype(dtype) for _ in range(3)]
    return [*large, *(rng.uniform(0.5, 2, (shape[0], shape[2])).astype(stored) for _ in range(2))]


def step(
    ops: OverHost, x: Array, dy: Array, residual: Array, gamma: Array, beta: Array, *outs: Array | None
) -> tuple[Array, ...]:
    """y, running_mean, running_var, dx, dgamma, dbeta and dresidual of a training step through residual and ReLU."""
    running, (y_out, dx_out) = (gamma - 1, beta + 1), outs or (None, None)
    options: dict[str, Any] = {"decay": 0.9, "eps": 1e-5, "correction": 1, "residual": residual, "activation": "relu"}
    made = ops.batch_norm_train(TrainArguments(x, gamma, beta, *running, out=y_out, **options))
    given = (dy, x, gamma, beta, made.moments.mean, made.rstd, True, made.moments.count)
    args = BackwardArguments(*given, activation="relu", active=made.active, residual=True, out=dx_out)
    return made.y, *running, *ops.batch_norm_backward(args)


def assert_same(got: tuple[Array, ...], want: tuple[Array, ...]) -> None:
    assert [a.tobytes() for a in got] == [a.tobytes() for a in want]


@in_both_ways
@of_every_shape
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_order_of_blocks_and_threads_changes_no_bit(shape: tuple[int, ...], dtype: str, device: str) -> None:
    ops, arrays = ops_on(DEVICES[device]), inputs(shape, np.dtype(dtype))
    same_in_every_schedule(lambda: step(ops, *arrays))


@in_both_ways
@of_every_shape
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_place_in_memory_changes_no_bit(shape: tuple[int, ...], dtype: Any, device: str) -> None:
    """An element further than 16 bytes ask for, and with outputs that lie elsewhere than the inputs."""
    ops, arrays = ops_on(DEVICES[device]), inputs(shape, dtype)
    want = step(ops, *arrays)
    identity = (0, 1, 2, 3)
    moved = [place(a, Memory(identity, (1,) * 4, (i + 1) * dtype.itemsize)).array for i, a in enumerate(arrays[:3])]
    outs = [place_nan(arrays[0], Memory(identity, (1,) * 4, i * dtype.itemsize)) for i in (0, 3)]
    got = step(ops, *moved, *arrays[3:], *(out.array for out in outs))
    assert_same(got, want)
    assert got[0] is outs[0].array
    assert got[3] is outs[1].array
    assert all(is_untouched_around(out) for out in outs)


@in_both_ways
@of_every_shape
def test_results_in_place_have_the_same_bits(shape: tuple[int, ...], device: str) -> None:
    """dx over dy, and in inference y over x."""
    ops = ops_on(DEVICES[device])
    x, dy, residual, gamma, beta = inputs(shape, np.float32)
    want = step(ops, x, dy, residual, gamma, beta)
    assert_same(step(ops, x, over := dy.copy(), residual, gamma, beta, None, over), want)
    args = InferenceArguments(x, gamma, beta, gamma, beta, eps=1e-5)
    y, _ = ops.batch_norm_inference(args)
    again, _ = ops.batch_norm_inference(args._replace(x=(over_x := x.copy()), out=over_x))
    assert again is over_x
    np.testing.assert_array_equal(again, y)


@in_both_ways
@of_every_shape
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_channel(shape: tuple[int, ...], bad: float, device: str) -> None:
    ops, arrays = ops_on(DEVICES[device]), inputs(shape, np.float32)
    want = step(ops, *arrays)
    channel = shape[2] // 2
    for row, place_in_row in ((0, 0), (shape[1] // 2, shape[3] // 3), (shape[1] - 1, shape[3] - 1)):
        x = arrays[0].copy()
        x[0, row, channel, place_in_row] = bad
        got = step(ops, x, *arrays[1:])
        for a, b in zip(got, want, strict=True):
            kept = np.ones(shape[:3:2], bool)
            kept[0, channel] = False
            kept = kept if a.ndim == 2 else np.broadcast_to(kept[:, None, :, None], shape)
            np.testing.assert_array_equal(a[kept], b[kept])
        assert np.isnan(got[0][0, :, channel]).all()
        assert np.isnan(got[3][0, :, channel]).all()


@in_both_ways
@of_every_shape
def test_a_constant_channel_gives_beta_exactly(shape: tuple[int, ...], device: str) -> None:
    ops = ops_on(DEVICES[device])
    *_, gamma, beta = inputs(shape, np.float32)
    for constant in (0.1, -7e8, 3e38):
        x = np.full(shape, constant, np.float32)
        made = ops.batch_norm_train(TrainArguments(x, gamma, beta, None, None, decay=0.9, eps=1e-5, correction=1))
        np.testing.assert_array_equal(made.y, np.broadcast_to(beta[:, None, :, None], shape))
        np.testing.assert_array_equal(made.moments.m2, np.zeros_like(made.moments.m2))


@in_both_ways
@of_every_shape
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wider_arithmetic_has_the_same_bits_in_every_schedule(shape: tuple[int, ...], dtype: str, device: str) -> None:
    ops, arrays = ops_on(DEVICES[device]), inputs(shape, np.dtype(dtype))
    arrays[0] = arrays[0] * arrays[0].dtype.type(1e30 if dtype == "float32" else 1e300)
    same_in_every_schedule(lambda: step(ops, *arrays))


@in_both_ways
@of_every_shape
def test_squares_beyond_the_type_and_a_far_first_element_cost_no_digit(shape: tuple[int, ...], device: str) -> None:
    """Where sums of x - k in float32 tell nothing, the moments are taken anew in double."""
    ops = ops_on(DEVICES[device])
    x = inputs(shape, np.float32)[0]
    far = x.copy()
    far[:, 0] = 1e9
    for values in (x * np.float32(1e30), far):
        made = ops.batch_norm_train(TrainArguments(values, None, None, None, None, decay=0.9, eps=1e-5, correction=1))
        wide = values.astype(np.longdouble)
        mean, std = wide.mean(axis=(1, 3), keepdims=True), wide.std(axis=(1, 3), keepdims=True)
        x_hat = (wide - mean) / std
        # 16 roundings of float32, as `kernel_oracle.rounding`
        assert (np.abs(made.y - x_hat) <= 16 * 2.0**-24 * (1 + np.abs(x_hat))).all()


@pytest.mark.slow
@in_both_ways
@of_every_shape
def test_no_thread_reads_what_another_one_writes_at_the_same_time(shape: tuple[int, ...], device: str) -> None:
    """Nor outside of an array, nor shared memory that nobody has written: the checks of a checked module."""
    step(ops_on(DEVICES[device], checked=True), *inputs(shape, np.float32))


@pytest.mark.slow
@in_both_ways
@of_every_shape
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_of_wider_arithmetic_read_nothing_that_another_one_writes(
    shape: tuple[int, ...], dtype: str, device: str
) -> None:
    """The squares leave the dtype too, so the moments are taken anew."""
    arrays = inputs(shape, np.dtype(dtype))
    arrays[0] = arrays[0] * arrays[0].dtype.type(1e30 if dtype == "float32" else 1e300)
    step(ops_on(DEVICES[device], checked=True), *arrays)


@pytest.mark.slow
def test_moments_taken_anew_wait_for_each_other() -> None:
    """Sums over a block for squares beyond the type, a channel after another, by the checks of a checked module."""
    x = inputs((1, 600, 8, 1), np.float32)[0] * np.float32(1e30)
    _, mean, m2 = ops_on(TWO_READS, checked=True).batch_norm_moments(MomentsArguments(x))
    wide = x.astype(np.longdouble)
    # Sums of 600 terms in float64
    np.testing.assert_allclose(mean[0], wide.mean(axis=(0, 1, 3)), rtol=1e-12)
    np.testing.assert_allclose(m2[0], 600 * wide.var(axis=(0, 1, 3)), rtol=1e-12)
