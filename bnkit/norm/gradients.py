"""The backward op with what renormalized, in-place and synchronous batch norm change in its arguments."""

from bnkit.backend import Array
from bnkit.norm import in_place, renorm, synchronous
from bnkit.norm.cache import BatchNormCache, Statistics
from bnkit.reference import BackwardArguments, BatchNormBackward


def gradients(
    cache: BatchNormCache,
    statistics: Statistics,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mask: Array | None,
    out: Array | None,
) -> BatchNormBackward:
    """The gradients of one segment, given by its arrays on the 4-D view."""
    mean, rstd, number, active = statistics
    xp, sums = cache.backend.xp, None
    if cache.renorm is not None:
        gamma, beta = renorm.parameters(xp, cache.renorm, gamma, beta, x)
    if cache.in_place:
        gamma, mean, rstd = in_place.substitutes(xp, gamma, beta, rstd, x)
    if cache.reduce is not None:
        part = (dy, x, gamma, beta, mean, rstd, mask, cache.activation, active)
        sums = synchronous.gradient_sums(cache.backend, cache.reduce, part)
    train = number is not None
    ending = (mask, cache.activation, active, cache.has_residual, out)
    grads = cache.backend.batch_norm_backward(
        BackwardArguments(dy, x, gamma, beta, mean, rstd, train, number, sums, *ending)
    )
    return grads if cache.renorm is None else renorm.gradients(xp, cache.renorm, grads)
