"""Ghost batches: each segment of the batch is normalized by its own statistics.

Source: Hoffer, Hubara & Soudry 2017, algorithm 1; the running arrays move once a batch, by the mean over the parts.
"""

from collections.abc import Sequence
from typing import Any

from bnkit import reference
from bnkit.backend import Array
from bnkit.norm.cache import BatchNormCache, Statistics, statistics_of
from bnkit.norm.call import Call
from bnkit.norm.gradients import gradients
from bnkit.norm.segments import by_group, join, repeat, split, total


def train(call: Call) -> tuple[Array, BatchNormCache]:
    """y, and the cache with the statistics of each segment."""
    backend, xp, args = call.backend, call.backend.xp, call.args
    results = [
        backend.batch_norm_train(
            args._replace(
                x=split(xp, args.x, segment),
                gamma=repeat(xp, args.gamma, segment),
                beta=repeat(xp, args.beta, segment),
                running_mean=None,
                running_var=None,
                mask=split(xp, args.mask, segment),
                residual=split(xp, args.residual, segment),
            )
        )
        for segment in call.segments
    ]
    if args.running_mean is not None and args.running_var is not None:
        moments = [result.moments for result in results]
        _move_running(xp, args.running_mean, args.running_var, moments, decay=args.decay, correction=args.correction)
    y = join(xp, [result.y for result in results], call.layout.shape)
    return y, call.cache(tuple(Statistics(r.moments.mean, r.rstd, r.moments.count, r.active) for r in results))


def backward(cache: BatchNormCache, dy: Array) -> reference.BatchNormBackward:
    """The gradients of each segment; those of the shared parameters are summed over the parts."""
    xp, shape, mask = cache.backend.xp, cache.layout.shape, cache.mask_view()
    results = [
        gradients(
            cache,
            statistics,
            split(xp, dy, segment),
            split(xp, cache.x_view, segment),
            repeat(xp, cache.gamma, segment),
            repeat(xp, cache.beta, segment),
            split(xp, mask, segment),
            None,
        )
        for segment, statistics in zip(cache.segments, statistics_of(cache), strict=True)
    ]
    return reference.BatchNormBackward(
        join(xp, [r.dx for r in results], shape),
        total(xp, [r.dgamma for r in results], shape[0]),
        total(xp, [r.dbeta for r in results], shape[0]),
        join(xp, [r.dresidual for r in results if r.dresidual is not None], shape) if cache.has_residual else None,
    )


def _move_running(
    xp: Any,
    running_mean: Array,
    running_var: Array,
    moments: Sequence[reference.Moments],
    *,
    decay: float,
    correction: int,
) -> None:
    """Move the running arrays once, by the mean over the parts in which the mask left enough elements."""
    groups = running_mean.shape[0]
    count, mean = (by_group(xp, [m[i] for m in moments], groups) for i in (0, 1))
    var = by_group(xp, [reference.variance(xp, m, correction) for m in moments], groups)
    for running, new, least in ((running_mean, mean, 0), (running_var, var, correction)):
        known = count > least
        parts = xp.sum(xp.astype(known, xp.float64), axis=1)
        new = xp.sum(xp.where(known, new, xp.zeros_like(new)), axis=1) / xp.where(parts > 0, parts, xp.ones_like(parts))
        reference.move(xp, running, new, parts > 0, decay=decay)
