"""The CUDA kernels of batch norm, executed on the CPU, against the formulas: every dtype, layout and way of reading."""

from typing import Any

import kernel_oracle as oracle
import ml_dtypes
import numpy as np
import pytest
from cuda_host.host_backend import DEVICES, ONE_READ, SHARED, TWO_READS, OverHost, needs_compiler, ops_on

from bnkit.reference import BackwardArguments, GradientSumsArguments, InferenceArguments, TrainArguments

pytestmark = needs_compiler

Array = np.ndarray[Any, Any]
AXES = (0, 2)  # of the view (groups, rows, channels, inner)
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
# One channel, two rows, primes, whole tiles and a vector more, groups, runs with and without whole vectors, and such
# whose tiles are cut into parts on the small devices of `cuda_host.host_backend`.
SHAPES = [
    (1, 2, 1, 1),
    (1, 37, 13, 1),
    (2, 100, 72, 1),
    (3, 11, 40, 1),
    (1, 5003, 1, 1),
    (1, 2200, 8, 1),
    (1, 4800, 8, 1),
    (2, 5, 3, 49),
    (1, 3, 2, 5003),
    (1, 600, 2, 32),
]


def small_arrays(x: Array, rng: np.random.Generator) -> tuple[Array, ...]:
    """gamma, beta, running_mean and running_var"""
    shape, stored = (x.shape[0], x.shape[2]), np.float64 if x.dtype == np.float64 else np.float32
    return tuple(rng.uniform(low, 2, shape).astype(stored) for low in (-2, -2, -2, 0.5))


class Watching:
    """A launcher that keeps the arguments of the kernels whose names begin so."""

    def __init__(self, launcher: Any, prefix: str, given: list[Any]) -> None:
        self._launcher, self._prefix, self._given = launcher, prefix, given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launcher, name)

    def __call__(self, name: str, blocks: int, arguments: tuple[Any, ...], **options: Any) -> None:
        if name.startswith(self._prefix):
            self._given.append(arguments)
        self._launcher(name, blocks, arguments, **options)


def check(
    ops: OverHost,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    activation: str | None = None,
    with_residual: bool = False,
    train: bool = True,
    mean: float = 3.0,
) -> None:
    rng = np.random.default_rng(shape)
    x, dy, residual = (rng.normal(m, s, shape).astype(dtype) for m, s in ((mean, 1.0), (0.2, 1.0), (0.0, 1.0)))
    gamma, beta, running_mean, running_var = small_arrays(x, rng)
    options: dict[str, Any] = {"residual": residual if with_residual else None, "activation": activation}
    made = (x, gamma, beta, running_mean.copy(), running_var.copy())
    want = oracle.forward(*made, axes=AXES, train=train, **options)
    dy[...] = oracle.away_from_the_kink(dy, want, activation)
    wanted = oracle.backward(dy, want, gamma, axes=AXES, train=train, activation=activation)
    if train:
        got = ops.batch_norm_train(TrainArguments(*made, decay=0.9, eps=1e-5, correction=1, **options))
        y, active, statistics, count = got.y, got.active, (got.moments.mean, got.rstd), got.moments.count
        np.testing.assert_array_equal(count, np.full(gamma.shape, shape[1] * shape[3]))
        assert want.running_mean is not None
        assert want.running_var is not None
        oracle.assert_near(made[3], want.running_mean, "running_mean")
        oracle.assert_near(made[4], want.running_var, "running_var")
    else:
        y, active = ops.batch_norm_inference(InferenceArguments(*made, eps=1e-5, **options))
        statistics = (running_mean.astype(float), 1 / np.sqrt(running_var.astype(float) + 1e-5))
        count = None
    oracle.assert_near(y, want.y, "y")
    given = (dy, x, gamma, beta, *statistics)
    gate: dict[str, Any] = {"activation": activation, "active": active}
    grads = ops.batch_norm_backward(BackwardArguments(*given, train=train, count=count, residual=with_residual, **gate))
    sums = ops.batch_norm_gradient_sums(GradientSumsArguments(*given, **gate))
    for name in ("dx", "dgamma", "dbeta"):
        oracle.assert_near(getattr(grads, name), getattr(wanted, name), name)
    for total, name in zip(sums, ("dbeta", "dgamma"), strict=True):
        oracle.assert_near(total, getattr(wanted, name), f"sum for {name}")
    if with_residual:
        np.testing.assert_array_equal(oracle.wide(grads.dresidual), wanted.dresidual)
    assert (y.dtype, grads.dx.dtype, grads.dgamma.dtype) == (dtype, dtype, gamma.dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_training_step_is_that_of_the_formulas(shape: tuple[int, ...], dtype: Any, device: str) -> None:
    check(ops_on(DEVICES[device]), shape, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize(
    "shape", [(2, 37, 13, 1), (1, 2200, 8, 1), (1, 4800, 8, 1), (2, 5, 3, 49), (1, 600, 2, 32)], ids=str
)
def test_a_relu_lets_through_what_the_formulas_do(
    shape: tuple[int, ...], with_residual: bool, dtype: Any, device: str
) -> None:
    check(ops_on(DEVICES[device]), shape, dtype, activation="relu", with_residual=with_residual)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", [(2, 37, 13, 1), (1, 3, 2, 5003)], ids=str)
def test_an_inference_takes_the_statistics_as_constants(
    shape: tuple[int, ...], activation: str | None, dtype: Any
) -> None:
    ops = ops_on(TWO_READS)
    check(ops, shape, dtype, train=False, activation=activation, with_residual=activation is not None, mean=0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 37, 13, 1), (1, 2200, 8, 1), (2, 5, 3, 49)], ids=str)
def test_a_mean_of_ten_thousand_deviations_costs_nothing(shape: tuple[int, ...], dtype: str, device: str) -> None:
    check(ops_on(DEVICES[device]), shape, np.dtype(dtype), mean=1e4)


@pytest.mark.parametrize(
    ("limits", "shape", "kernels"),
    [
        (ONE_READ, (1, 100, 100, 1), [("train", False), ("backward", False)]),
        (ONE_READ, (1, 5003, 1, 1), [("train", True), ("backward", True)]),
        (SHARED, (1, 4800, 8, 1), [("train", True), ("backward", True)]),
        (SHARED, (1, 600, 2, 32), [("train", False), ("backward", False)]),
        (TWO_READS, (1, 100, 100, 1), [("train", False), ("backward", False)]),
        (
            TWO_READS,
            (1, 5003, 1, 1),
            [(k, False) for k in ("moments", "normalize", "gradient_sums", "gradient")],
        ),
    ],
    ids=[
        "a block",
        "a chip",
        "a chip's shared memory",
        "blocks' shared memory",
        "a block without cooperation",
        "two reads",
    ],
)
def test_the_cost_rule_reads_once_what_fits(
    limits: Any, shape: tuple[int, ...], kernels: list[tuple[str, bool]]
) -> None:
    ops = ops_on(limits)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    made = ops.batch_norm_train(TrainArguments(x, None, None, None, None, decay=0.9, eps=1e-5, correction=1))
    statistics = (made.moments.mean, made.rstd)
    ops.batch_norm_backward(BackwardArguments(x, x, None, None, *statistics, train=True, count=made.moments.count))
    assert ops.launches == kernels


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gate", ["open", "by x", "by bits"])
def test_dx_of_constant_statistics_is_found_without_x(gate: str, train: bool) -> None:
    """The second pass gets a null pointer, at which a read would end the process."""
    ops = ops_on(TWO_READS)
    given: list[Any] = []
    ops.backend.launcher = Watching(ops.backend.launcher, "bnkit::gradient<", given)
    rng, shape = np.random.default_rng(0), (1, 5003, 1, 1)
    x, dy, residual = rng.normal(size=(3, *shape)).astype(np.float32)
    activation = None if gate == "open" else "relu"
    mean, var = np.zeros((1, 1)), np.full((1, 1), 0.25)
    added = residual if gate == "by bits" else None
    made = ops.batch_norm_inference(InferenceArguments(x, None, None, mean, var, 0.0, added, activation))
    arrays = (dy, x, None, None, mean, 1 / np.sqrt(var))
    args = BackwardArguments(*arrays, train, np.full((1, 1), 5003.0), activation=activation, active=made[1])
    grads = ops.batch_norm_backward(args)
    assert [arguments[1] is None for arguments in given] == [not train and gate != "by x"]
    if not train:
        np.testing.assert_array_equal(grads.dx, np.where((made[0] > 0) | (gate == "open"), 2 * dy, 0))
