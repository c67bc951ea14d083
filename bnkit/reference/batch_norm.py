"""The forward of batch norm: what a kernel must compute, what a backend falls back to, what tests measure against.

`xp` is the array namespace. `x`, `y`, `residual` and `mask` are `(groups, rows, channels, inner)`; rows and inner are
reduced. Statistics and parameters are `(groups, channels)`; gamma and beta may be None. All arithmetic is in float64
whatever the storage, so a mean of 1e4 at a spread of 1 costs a float32 result nothing.
"""

from typing import Any, NamedTuple

from bnkit.reference.array import Array, channel, quiet, store, wide
from bnkit.reference.bits import pack_bits
from bnkit.reference.moments import Moments, moments_in_units, move_running, reciprocal_std, variance


class TrainArguments(NamedTuple):
    """mask: True where an element counts in the statistics. activation: None or "relu". out: takes y."""

    x: Array
    gamma: Array | None
    beta: Array | None
    running_mean: Array | None
    running_var: Array | None
    decay: float
    eps: float
    correction: int
    mask: Array | None = None
    residual: Array | None = None
    activation: str | None = None
    out: Array | None = None


class InferenceArguments(NamedTuple):
    """mean and var: the statistics that normalize x; var is biased."""

    x: Array
    gamma: Array | None
    beta: Array | None
    mean: Array
    var: Array
    eps: float
    residual: Array | None = None
    activation: str | None = None
    out: Array | None = None


class BatchNormTrain(NamedTuple):
    """A training forward: the output, and what the backward and the running statistics need."""

    y: Array
    moments: Moments
    rstd: Array  # 1 / sqrt(biased variance + eps); 0 where the mask hides a whole channel
    active: Array | None  # with residual and ReLU: where the ReLU passed its input, one bit an element


@quiet
def batch_norm_train(xp: Any, args: TrainArguments) -> BatchNormTrain:
    """Normalize each channel of `x` by its own mean and variance, and move the running statistics.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, plus the residual, through the activation.
    Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    in_units, unit = moments_in_units(xp, args.x, args.mask, args.eps)
    rstd = 1 / xp.sqrt(variance(xp, in_units, 0) + args.eps / unit / unit) / unit
    rstd = xp.where(in_units.count > 0, rstd, xp.zeros_like(rstd))
    moments = Moments(in_units.count, in_units.mean * unit, in_units.m2 * unit * unit)
    y, active = _normalize(xp, args, moments.mean, rstd, args.mask)
    if args.running_mean is not None and args.running_var is not None:
        running = (args.running_mean, args.running_var)
        move_running(xp, *running, moments, decay=args.decay, correction=args.correction)
    return BatchNormTrain(y, moments, rstd, active)


@quiet
def batch_norm_inference(xp: Any, args: InferenceArguments) -> tuple[Array, Array | None]:
    """Normalize by given statistics: y, and the bits of the ReLU as in training."""
    rstd = reciprocal_std(xp, args.var, args.eps)
    return _normalize(xp, args, wide(xp, args.mean), rstd, None)


def _normalize(
    xp: Any, args: TrainArguments | InferenceArguments, mean: Array, rstd: Array, mask: Array | None
) -> tuple[Array, Array | None]:
    y = affine(xp, normalized(xp, args.x, mean, rstd, mask), args.gamma, args.beta)
    if args.residual is not None:
        y = y + wide(xp, args.residual)
    active = None
    if args.activation is not None:
        if args.residual is not None:
            active = pack_bits(xp, stored_above_zero(xp, y, args.x.dtype))
        y = xp.maximum(y, xp.zeros_like(y))
    return store(xp, y, args.x.dtype, args.out), active


def normalized(xp: Any, x: Array, mean: Array, rstd: Array, mask: Array | None) -> Array:
    """x_hat = (x - mean) * rstd, and 0 in a channel that the mask hides, where x may be NaN."""
    x_hat = (wide(xp, x) - channel(mean)) * channel(rstd)
    if mask is None:
        return x_hat
    return xp.where(channel(rstd) == 0, xp.zeros_like(x_hat), x_hat)


def affine(xp: Any, x_hat: Array, gamma: Array | None, beta: Array | None) -> Array:
    """gamma * x_hat + beta."""
    y = x_hat if gamma is None else x_hat * channel(wide(xp, gamma))
    return y if beta is None else y + channel(wide(xp, beta))


def stored_above_zero(xp: Any, y: Array, dtype: Any) -> Array:
    """The gate of the ReLU: whether y, as stored in `dtype`, is above 0. A y that rounds to 0 passes nothing."""
    return wide(xp, xp.astype(y, dtype)) > 0  # not every library compares bfloat16
