"""The batch-norm ops by kernels: which ones, over which blocks, with which arguments.

All arrays are views (groups, rows, channels, inner) of at least one element, and (groups, channels).
"""

from typing import Any

import numpy as np

from bnkit.reference import (
    Array,
    BackwardArguments,
    BatchNormBackward,
    BatchNormTrain,
    GradientSumsArguments,
    InferenceArguments,
    Moments,
    MomentsArguments,
    TrainArguments,
)

from . import plan as plans
from .launch import Launcher, tiled_name, vectors_fit
from .plan import Geometry, Plan

_GATES = {"open": 0, "by x": 1, "by bits": 2}
_STATISTICS = ("float32", "float64")


class Call:
    """One call of an op on x: what all of its launches share."""

    def __init__(self, launcher: Launcher, x: Array) -> None:
        self.launcher = launcher
        self.dtype: str = x.dtype.name
        self.stored = x.dtype
        self.parameter = "float64" if self.dtype == "float64" else "float32"
        self.shape = tuple(x.shape)
        self.small = (self.shape[0], self.shape[2])
        self.x = launcher.argument("x", x, self.dtype, self.shape)
        self.geometry: Geometry = plans.geometry_of(self.shape, x.dtype.itemsize)

    def like_x(self, name: str, a: Array | None) -> Any:
        return self.launcher.argument(name, a, self.dtype, self.shape)

    def parameters(self, **arrays: Array | None) -> tuple[Array | None, ...]:
        return tuple(self.launcher.argument(name, a, self.parameter, self.small) for name, a in arrays.items())

    def statistics(self, **arrays: Array | None) -> tuple[Array | None, ...]:
        return tuple(self.launcher.argument(name, a, "float64", self.small) for name, a in arrays.items())

    def flags(self, active: Array) -> Array | None:
        return self.launcher.argument("active", active, "uint32", self.geometry.flag_words)

    def result(self, out: Array | None) -> Array:
        return self.launcher.empty(self.shape, self.stored) if out is None else self.like_x("out", out)

    def two_reads(self) -> Plan:
        return plans.two_reads(self.geometry, self.launcher.limits)

    def one_read(self, kernel: str) -> Plan | None:
        return plans.one_read(kernel, self.geometry, self.launcher.limits, self.stored.itemsize)

    def workspace(self, plan: Plan) -> tuple[Array | None, Array | None]:
        """partials and counters, which one block a tile does without."""
        if plan.splits == 1:
            return None, None
        return (
            self.launcher.empty((plan.splits, 2, *self.small), np.float64),
            self.launcher.counters(plan.geometry.tiles),
        )

    def run(self, kernel: str, plan: Plan, arguments: tuple[Any, ...], *arrays: Array | None) -> None:
        """Launch it; `arrays`: those of the shape of x, which are read and written by vectors."""
        runs, vector, columns, height, _, _ = plan.geometry
        scalars = (*map(np.int64, (*self.shape, plan.splits, plan.chunk)), vectors_fit(*arrays))
        self.launcher(
            tiled_name(kernel, self.dtype, vector, runs),
            plan.blocks,
            (*arguments, *scalars),
            dtype=self.dtype,
            block=(columns, height),
            cooperative=kernel in plans.HELD and plan.splits > 1,
            shared=plan.shared,
        )


def moments(launcher: Launcher, args: MomentsArguments) -> Moments:
    statistics = _two_read_moments(Call(launcher, args.x), None, None, decay=0.0, correction=0, eps=0.0)
    return Moments(statistics[0, ...], statistics[1, ...], statistics[2, ...])


def train(launcher: Launcher, args: TrainArguments) -> BatchNormTrain:
    x, gamma, beta, mean, var, decay, eps, correction, _, residual, activation, out = args
    call, relu = Call(launcher, x), activation is not None
    residual, y = call.like_x("residual", residual), call.result(out)
    gamma, beta = call.parameters(gamma=gamma, beta=beta)
    mean, var = call.parameters(running_mean=mean, running_var=var)
    active = launcher.empty(call.geometry.flag_words, np.uint32) if relu and residual is not None else None
    if plan := call.one_read("train"):
        statistics = launcher.empty((4, *call.small), np.float64)
        options = (np.float64(decay), np.float64(correction), np.float64(eps), np.int32(relu))
        arguments = (x, residual, y, active, statistics, *call.workspace(plan), gamma, beta, mean, var, *options)
        call.run("train", plan, arguments, x, residual, y)
    else:
        statistics = _two_read_moments(call, mean, var, decay=decay, correction=correction, eps=eps)
        spread = (statistics[1, ...], statistics[3, ...], False, 0.0)
        _normalize(call, residual, y, active, spread, gamma, beta, relu)
    moments = Moments(statistics[0, ...], statistics[1, ...], statistics[2, ...])
    return BatchNormTrain(y, moments, statistics[3, ...], active)


def inference(launcher: Launcher, args: InferenceArguments) -> tuple[Array, Array | None]:
    x, gamma, beta, mean, var, eps, residual, activation, out = args
    call, relu = Call(launcher, x), activation is not None
    residual, y = call.like_x("residual", residual), call.result(out)
    gamma, beta = call.parameters(gamma=gamma, beta=beta)
    mean = launcher.argument("mean", mean, _STATISTICS, call.small)
    var = launcher.argument("var", var, _STATISTICS, call.small)
    active = launcher.empty(call.geometry.flag_words, np.uint32) if relu and residual is not None else None
    _normalize(call, residual, y, active, (mean, var, True, eps), gamma, beta, relu)
    return y, active


def gradient_sums(launcher: Launcher, args: GradientSumsArguments) -> tuple[Array, Array]:
    call = Call(launcher, args.x)
    totals = _two_read_sums(call, _gradient_inputs(call, args), None, None)
    return totals[0, ...], totals[1, ...]


def backward(launcher: Launcher, args: BackwardArguments) -> BatchNormBackward:
    call = Call(launcher, args.x)
    inputs = _gradient_inputs(call, args)
    sum_dy, sum_dy_x_hat = (None, None) if args.sums is None else args.sums
    count, *sums = call.statistics(count=args.count, sum_dy=sum_dy, sum_dy_x_hat=sum_dy_x_hat)
    parameters = launcher.empty((2, *call.small), call.parameter)
    dgamma, dbeta = parameters[0, ...], parameters[1, ...]
    dx = call.result(args.out)
    dresidual = launcher.empty(call.shape, call.stored) if args.residual else None
    *arrays, gate = inputs
    dy, x, train = arrays[0], arrays[1], np.int32(args.train)
    if args.sums is None and (plan := call.one_read("backward")):
        arguments = (*arrays, count, *call.workspace(plan), dx, dresidual, dgamma, dbeta, gate, train)
        call.run("backward", plan, arguments, dy, x, dx, dresidual)
    else:
        totals = _two_read_sums(call, inputs, dgamma, dbeta)
        if args.sums is None:
            sums = [totals[0, ...], totals[1, ...]]
        needed = x if train or gate == _GATES["by x"] else None
        arguments = (dy, needed, *arrays[2:], count, *sums, dx, dresidual, gate, train)
        call.run("gradient", call.two_reads(), arguments, dy, needed, dx, dresidual)
    return BatchNormBackward(dx, dgamma, dbeta, dresidual)


def _two_read_moments(
    call: Call, running_mean: Array | None, running_var: Array | None, *, decay: float, correction: int, eps: float
) -> Array:
    """count, mean, m2 and rstd, (4, groups, channels)."""
    plan = call.two_reads()
    statistics = call.launcher.empty((4, *call.small), np.float64)
    options = (np.float64(decay), np.float64(correction), np.float64(eps))
    arguments = (call.x, statistics, *call.workspace(plan), running_mean, running_var, *options)
    call.run("moments", plan, arguments, call.x)
    return statistics


def _normalize(
    call: Call,
    residual: Array | None,
    y: Array,
    active: Array | None,
    statistics: tuple[Array, Array, bool, float],
    gamma: Array | None,
    beta: Array | None,
    relu: bool,
) -> None:
    """statistics: the mean, the variance or rstd, whether it is the variance, and eps."""
    mean, spread, is_variance, eps = statistics
    kinds = [np.int32(a.dtype.name == "float64") for a in (mean, spread)]
    given = (mean, kinds[0], spread, kinds[1], np.int32(is_variance), np.float64(eps))
    arguments = (call.x, residual, y, active, *given, gamma, beta, np.int32(relu))
    call.run("normalize", call.two_reads(), arguments, call.x, residual, y)


def _gradient_inputs(call: Call, args: GradientSumsArguments | BackwardArguments) -> tuple[Any, ...]:
    """The arguments that every kernel of a backward begins with, and its gate."""
    if args.activation is None:
        gate, bits = "open", None
    elif args.active is None:
        gate, bits = "by x", None
    else:
        gate, bits = "by bits", call.flags(args.active)
    small = call.statistics(mean=args.mean, rstd=args.rstd) + call.parameters(gamma=args.gamma, beta=args.beta)
    return call.like_x("dy", args.dy), call.x, bits, *small, np.int32(_GATES[gate])


def _two_read_sums(call: Call, inputs: tuple[Any, ...], dgamma: Array | None, dbeta: Array | None) -> Array:
    """Σ dy and Σ dy * x_hat, (2, groups, channels)."""
    *arrays, gate = inputs
    plan = call.two_reads()
    totals = call.launcher.empty((2, *call.small), np.float64)
    call.run("gradient_sums", plan, (*arrays, totals, *call.workspace(plan), dgamma, dbeta, gate), *arrays[:2])
    return totals
