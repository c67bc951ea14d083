"""batch_norm() and its backward: prepare the call, choose its variant, compute.

`fast.prepare` or `call.prepare` makes an immutable record of the checked arguments. Each variant is one function from
this record to y and the cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from bnkit.backend import Array, Layout, checks
from bnkit.backend.layout import reshape
from bnkit.backend.messages import shown
from bnkit.norm import arguments, by_moments, fast, plain
from bnkit.norm import ghost as ghost_batches
from bnkit.norm.cache import BatchNormCache
from bnkit.norm.call import Call, has_wide_statistics, prepare, view_of_out
from bnkit.norm.synchronous import Reduce


class BatchNormGrads(NamedTuple):
    """Gradients with respect to x, gamma, beta and the residual; None for what was not given."""

    dx: Array
    dgamma: Array | None
    dbeta: Array | None
    dresidual: Array | None


def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    train: bool,
    axis: int | tuple[int, ...] = 1,
    decay: float = 0.9,
    eps: float = 1e-5,
    correction: int = 1,
    mask: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
    ghost: int | None = None,
    reduce: Reduce | None = None,
    renorm: tuple[float, float] | None = None,
    in_place: bool = False,
    out: Array | None = None,
) -> tuple[Array, BatchNormCache]:
    """Batch normalization of x over every axis but `axis`, and the cache for `batch_norm_backward`.

    y = gamma * (x - mean) / sqrt(var + eps) + beta [+ residual] [through ReLU], by the batch's mean and biased variance
    in training and by the running ones in inference. y has the dtype of x and, where x is dense, its memory layout.

    The cache refers to x itself, so x must keep its values until the backward. Nothing checks this: after `x += 1` the
    backward returns a wrong dx without an error. Pass x.copy(), or write to x after the backward. With in_place=True
    the rule holds for y. All other arrays may be written at once: the cache holds copies of gamma, beta, the mask and
    the statistics, and neither the residual nor any other y.

    x: float16, bfloat16, float32 or float64, of any backend; dense arrays are read in place, others copied once.
    gamma, beta, running_mean, running_var: shape `tuple(x.shape[a] for a in sorted(axis))`; float32, or float64 for
        float64 x; the running arrays may be float64 for any x. Training moves them, which come both or neither, in
        place: decay * running + (1 - decay) * batch, the variance as the squared distances over (count - correction).
        A negative running_var is no error: where it lies below -eps, y is NaN in its channel, as in PyTorch.
    decay: any finite float; PyTorch's momentum is 1 - decay. `BatchNorm` takes 0 to 1 alone.
    axis: one axis, adjacent axes, or axis 0 (groups, replicas) and one of those.
    mask: bool, True where an element counts in the statistics; broadcastable to x with x.ndim dimensions, or exactly
        the batch axis. Every element is normalized, and passes on its own dy; a masked loss makes that zero.
    activation: None or "relu"; its backward lets dy through where y, as it was written, is above 0. residual: an array
        like x.
    ghost: in training, every so many entries of the batch axis have their own statistics, and so has a remainder; the
        running arrays move once, by the mean of theirs.
    reduce: in training, returns the sum of a small array over all ranks, which makes batch norm synchronous: every
        rank calls it twice here and once in the backward. dgamma and dbeta stay the rank's own.
    renorm: (r_max, d_max) of batch renormalization in training, r_max ≥ 1 and d_max ≥ 0, or math.inf for no limit:
        y = gamma * (x_hat * r + d) + beta with r = std / running_std from 1 / r_max to r_max and d = (mean -
        running_mean) / running_std within ±d_max, constants of the backward; std is sqrt(var + eps).
    in_place: y is written over x, the cache keeps y alone, and the backward recovers x_hat = (y - beta) / gamma, off by
        u * |beta / gamma| where y was rounded by u; gamma and beta are read, and refused where that exceeds sqrt(u) or
        |gamma| is not from 2**-19 to 2**40. y must keep its values until the backward. Where y overflowed its dtype,
        the backward cannot recover x.
    out: written and returned instead of a new array; must not overlap x or the residual, but in inference may be x.

    Range: y and the gradients are right wherever their dtype holds them, even where it holds neither gamma / std nor
    the squares of x. The limits: std lies between 6e-309 and 1e308, and x - mean fits float32, or float64 for float64
    x. running_var becomes inf where its dtype does not hold the variance, and then inference gives beta. reduce, renorm
    and in_place pass the variance on as float64: with float64 x, their std lies between 1e-154 and 1e154. in_place
    needs gamma**2 / std within the dtype of gamma. For x narrower than float64, the backward needs dy * (x - mean)
    within float32 where std lies between 1e-18 and 1e18.

    Raises TypeError for a wrong type or dtype or for mixed backends, ValueError for a wrong shape or value and for a
    read-only or overlapping array, before anything is written.
    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; Ioffe 2017, algorithm 1; Rota Bulò et al. 2018, section 3.1.
    """
    arguments.check_options(train, decay, eps, correction, activation, ghost, reduce, renorm, in_place)
    arrays = (x, gamma, beta, running_mean, running_var, train, axis, decay, eps, correction)
    if mask is None and ghost is None and reduce is None and renorm is None and not in_place:
        call = fast.prepare(*arrays, residual, activation, out)
        if call is not None:
            y, cache = plain.train(call) if train else plain.infer(call)
            return (reshape(call.backend.xp, y, x.shape) if out is None else out), cache
    call = prepare(*arrays, mask, residual, activation, ghost, reduce, renorm, in_place, out)
    y, cache = choose(call)(call)
    for running, moved in call.copied:
        running[...] = call.backend.xp.reshape(moved, running.shape)
    return _result(call.layout, y, call.args.out, call.out, call.backend.xp), cache


def choose(call: Call) -> Callable[[Call], tuple[Array, BatchNormCache]]:
    """The variant of batch norm that computes this call."""
    if not call.train:
        return plain.infer
    if call.segments:
        return ghost_batches.train
    if call.renorm is not None:
        return by_moments.train_renormalized
    if call.reduce is not None or call.in_place:
        return by_moments.train
    return plain.train_with_wide_statistics if has_wide_statistics(call) else plain.train


def batch_norm_backward(dy: Array, cache: BatchNormCache, *, out: Array | None = None) -> BatchNormGrads:
    """The gradients of the `batch_norm` call that returned `cache`; one cache serves any number of backwards.

    x must still have the values that it had in the forward, or y with in_place=True, because the cache refers to it.
    Nothing checks this: if x was written to, dx and dgamma are wrong. See `batch_norm` for the remedy.

    dy and dx have the shape, the dtype and, where it is dense, the memory layout of x. `out` takes dx. It may be dy
    itself, but must not overlap x, or only a part of dy. After inference the statistics are constants.
    """
    check_cache(cache)
    backend, layout, xp = cache.backend, cache.layout, cache.backend.xp
    views = fast.backward_views(cache, dy, out)
    if views is None:
        _check_backward(dy, cache, out)
        views = layout.view(xp, dy), None if cache.segments else view_of_out(out, layout, backend)
    grads = ghost_batches.backward(cache, views[0]) if cache.segments else plain.backward(cache, *views)
    return BatchNormGrads(
        _result(layout, grads.dx, views[1], out, xp),
        None if cache.gamma is None else reshape(xp, grads.dgamma, layout.parameters),
        None if cache.beta is None else reshape(xp, grads.dbeta, layout.parameters),
        None if grads.dresidual is None else layout.restore(xp, grads.dresidual),
    )


def check_cache(cache: Any) -> None:
    if not isinstance(cache, BatchNormCache):
        raise TypeError(f"cache must be what batch_norm returned, got {shown(cache)}; pass its second value")


def _check_backward(dy: Array, cache: BatchNormCache, out: Array | None) -> None:
    backend = cache.backend
    if (found := checks.common_backend(dy=dy, out=out)) is not backend:
        raise TypeError(f"dy must be of the backend of x, {backend.key}, got {found.key}; move it")
    checks.check_like("dy", dy, cache.x)
    if cache.x_view is None:
        raise ValueError("cache must refer to x as it was, but the forward wrote y over it; give that another out")
    if out is not None:
        checks.check_out(out, cache.x, backend)
        checks.check_apart("out", out, {"x": cache.x, "dy": None if out is dy else dy}, backend)


def _result(layout: Layout, view: Array, out_view: Array | None, out: Array | None, xp: Any) -> Array:
    """The op's result in the shape of x: `out` if there is one, written here where the op could not write it."""
    if out is None:
        return layout.restore(xp, view)
    if out_view is None:
        out[...] = layout.restore(xp, view)
    return out
