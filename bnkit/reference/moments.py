"""The statistics of a batch, and the running statistics that follow them.

Statistics are `(groups, channels)` in float64; the running arrays have the dtype of the parameters.
"""

from typing import Any, NamedTuple

from bnkit.reference.array import Array, channel_sum, only, quiet, wide

# Where float64 cannot hold the squares of a channel, its values are divided by a power of two, which is exact.
HUGE, TINY, UNIT = 1e130, 1e-130, 2.0**600


class Moments(NamedTuple):
    """The number of elements, their mean, and the sum of their squared distances from it; each `(groups, channels)`.

    For float64 values above about 1e150 m2 is inf, and below 1e-150 it loses digits.
    """

    count: Any  # an Array; the method tuple.count bars the type
    mean: Array
    m2: Array


class MomentsArguments(NamedTuple):
    """mask: True where an element counts, bool in the shape of x."""

    x: Array
    mask: Array | None = None


@quiet
def batch_norm_moments(xp: Any, args: MomentsArguments) -> Moments:
    """Count, mean and squared distances of each channel, by two passes.

    A second pass over the mean makes it exact for a constant channel.
    """
    (count, mean, m2), unit = moments_in_units(xp, args.x, args.mask, 0.0)
    return Moments(count, mean * unit, m2 * unit * unit)


def moments_in_units(xp: Any, x: Array, mask: Array | None, eps: float) -> tuple[Moments, Any]:
    """The moments of x / unit, and unit: 1 unless squares of x would leave float64 and eps does not hide it."""
    narrow = x.dtype != xp.float64 or 0 in x.shape
    unit: Any = 1.0
    x = wide(xp, x)
    if mask is not None:
        mask = xp.broadcast_to(mask, x.shape)
    if not narrow:
        size = xp.max(xp.abs(only(xp, mask, x)), axis=(1, 3), keepdims=True)
        size = xp.maximum(size, xp.full_like(size, eps**0.5))
        one = xp.ones_like(size)
        unit = xp.where(size > HUGE, one * UNIT, xp.where(size < TINY, one / UNIT, one))
        x, unit = x / unit, unit[:, 0, :, 0]
    total = channel_sum(xp, only(xp, mask, x))
    if mask is None:
        count = xp.full_like(total, float(x.shape[1] * x.shape[3]))
    else:
        count = channel_sum(xp, wide(xp, mask))
    n = xp.where(count > 0, count, xp.ones_like(count))
    mean = total / n
    mean = mean + channel_sum(xp, only(xp, mask, x - mean)) / n
    m2 = channel_sum(xp, only(xp, mask, (x - mean) ** 2))
    return Moments(*(a[:, 0, :, 0] for a in (count, mean, m2))), unit


@quiet
def variance(xp: Any, moments: Moments, correction: int) -> Array:
    """m2 / (count - correction), and 0 where the count is not above the correction."""
    known = moments.count > correction
    n = xp.where(known, moments.count - correction, xp.ones_like(moments.count))
    return xp.where(known, moments.m2 / n, xp.zeros_like(moments.m2))


@quiet
def reciprocal_std(xp: Any, var: Array, eps: float) -> Array:
    """1 / sqrt(var + eps), in float64."""
    return 1 / xp.sqrt(wide(xp, var) + eps)


@quiet
def move_running(
    xp: Any, running_mean: Array, running_var: Array, moments: Moments, *, decay: float, correction: int
) -> None:
    """Move the running statistics towards `moments`, in place; the variance takes m2 / (count - correction).

    A channel that the mask hides keeps both; a channel with count ≤ correction keeps its variance.
    Source: Ioffe & Szegedy 2015, algorithm 2, step 10.
    """
    move(xp, running_mean, moments.mean, moments.count > 0, decay=decay)
    move(xp, running_var, variance(xp, moments, correction), moments.count > correction, decay=decay)


@quiet
def move(xp: Any, running: Array, new: Array, known: Array, *, decay: float) -> None:
    """running = decay * running + (1 - decay) * new, in place, where `known`."""
    old = wide(xp, running)
    running[...] = xp.astype(xp.where(known, decay * old + (1 - decay) * new, old), running.dtype)
