"""batch_norm() and its backward: checks, the way to the 4-D view, and the call of the backend's op."""

from typing import Any, NamedTuple

from bnkit.backend import Array, Backend, checks, dtype_name, known_backends, owner
from bnkit.backend.layout import Layout, contiguous, is_contiguous, reshape
from bnkit.backend.messages import shown
from bnkit.norm import arguments
from bnkit.norm import ghost as ghosts
from bnkit.norm import in_place as in_places
from bnkit.norm.synchronous import Reduce
from bnkit.norm.variants import (
    BatchNormCache,
    backward_batch,
    backward_ghosts,
    copy,
    infer,
    train_batch,
    train_by_moments,
    train_ghosts,
)


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
    backend = known_backends.get(type(x)) or owner(x, "x")
    xp = backend.xp
    arguments.check_options(
        train=train, decay=decay, eps=eps, correction=correction, activation=activation, ghost=ghost, reduce=reduce
    )
    if renorm is not None or in_place is not False:
        arguments.check_composed(renorm=renorm, in_place=in_place, ghost=ghost, activation=activation)
    layout = backend.layout(x, axis)
    parameters = (gamma, beta, running_mean, running_var)
    tracked = running_mean is not None and running_var is not None
    copies = 2 if train else 4  # for the cache, since all four may move before the backward
    segments: tuple[ghosts.Segment, ...] = ()
    over_x = out is x and not train
    views = None
    if mask is ghost is None and not in_place and (tracked or (train and running_mean is running_var)):
        views = backend.plain_views(x, (residual, None if over_x else out), parameters, copies, layout)
    plain = views is not None
    apart = False  # whether the running arrays have more digits than an op takes
    if views is None:
        if in_place:
            arguments.check_in_place(backend, x, residual, out)
            out, over_x = x, True
        options: dict[str, Any] = {"train": train, "axis": axis, "ghost": ghost, "over_x": over_x}
        layout, mask = _checked(backend, x, *parameters, mask, residual, out, **options)
        segments = ghosts.segments(layout, x.shape[layout.batch], ghost if train else None)
        apart = tracked and checks.parameter_dtype(dtype_name(x)) != dtype_name(running_mean)
        views = _views(backend, layout, segments, x, residual, out, parameters, copies)
    few = ghost is not None or layout.shape[1] * layout.shape[3] <= correction
    if few and train and tracked and mask is reduce is None:
        arguments.check_enough(segments, layout, correction)
    if renorm is not None and train and not tracked:
        raise ValueError("renorm needs running_mean and running_var in training, got None; pass them, or renorm=None")

    x_view, residual_view, out_view, own_gamma, own_beta, mean, var = views
    if in_place:
        in_places.check_arrays(backend, x, x_view, own_gamma, own_beta)
    if plain and over_x:
        out_view = x_view
    cache = BatchNormCache(
        backend,
        layout,
        x,
        x_view,
        own_gamma,
        own_beta,
        copy(xp, mask) if train and mask is not None else None,
        activation,
        residual is not None,
        reduce if train else None,
        segments,
        (),
    )
    if in_place:
        cache.in_place = True
    if not train:
        y = infer(cache, (mean, var), residual_view, float(eps), out_view)
    elif segments:
        y = train_ghosts(cache, (mean, var), residual_view, float(eps), float(decay), correction)
    elif in_place or reduce is not None or renorm is not None:
        y = train_by_moments(cache, (mean, var), residual_view, float(eps), float(decay), correction, renorm, out_view)
    else:
        y = train_batch(cache, (mean, var), residual_view, float(eps), float(decay), correction, out_view, apart)
    if train and tracked and not plain:
        pairs: tuple[Any, ...] = ((running_mean, mean), (running_var, var))
        for own, moved in pairs:
            if not is_contiguous(own) and not backend.overlap(own, moved):  # the op had a contiguous copy
                own[...] = xp.reshape(moved, own.shape)
    if over_x and not in_place:
        cache.x_view = None
    return _result(xp, y, out_view, out, layout), cache


def batch_norm_backward(dy: Array, cache: BatchNormCache, *, out: Array | None = None) -> BatchNormGrads:
    """The gradients of the `batch_norm` call that returned `cache`; one cache serves any number of backwards.

    x must still have the values that it had in the forward, or y with in_place=True, because the cache refers to it.
    Nothing checks this: if x was written to, dx and dgamma are wrong. See `batch_norm` for the remedy.

    dy and dx have the shape, the dtype and, where it is dense, the memory layout of x. `out` takes dx. It may be dy
    itself, but must not overlap x, or only a part of dy. After inference the statistics are constants.
    """
    check_cache(cache)
    backend, layout, xp = cache.backend, cache.layout, cache.backend.xp
    views = None
    if dy is not None and not cache.segments and cache.x_view is not None:
        views = backend.plain_views(dy, (cache.x, None if out is dy else out), (), 0, layout)
    if views is None:
        _check_backward(dy, cache, out)
        dy_view, out_view = layout.view(xp, dy), _view_of_out(out, layout, cache.segments, backend)
    else:
        dy_view, _, out_view = views
        out_view = dy_view if out is dy else out_view
    grads = backward_ghosts(cache, dy_view) if cache.segments else backward_batch(cache, dy_view, out_view)
    gamma, beta = cache.gamma, cache.beta
    return BatchNormGrads(
        _result(xp, grads.dx, out_view, out, layout),
        None if gamma is None else reshape(xp, grads.dgamma, layout.parameters),
        None if beta is None else reshape(xp, grads.dbeta, layout.parameters),
        layout.restore(xp, grads.dresidual) if cache.has_residual else None,
    )


def check_cache(cache: Any) -> None:
    if not isinstance(cache, BatchNormCache):
        raise TypeError(f"cache must be what batch_norm returned, got {shown(cache)}; pass its second value")


def _checked(
    backend: Backend,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    mask: Array | None,
    residual: Array | None,
    out: Array | None,
    *,
    train: bool,
    axis: int | tuple[int, ...],
    ghost: int | None,
    over_x: bool,
) -> tuple[Layout, Array | None]:
    """The layout, and the mask with x.ndim dimensions, of arrays that were looked at one by one."""
    small = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    others = {**small, "mask": mask, "residual": residual, "out": out}
    checks.one_backend(("x", *others), (x, *others.values()))
    checks.check_data("x", x)
    layout = backend.layout(x, axis)
    if ghost is not None:
        layout = ghosts.with_batch_first(layout, tuple(x.shape), axis)
    running = arguments.check_running(x, layout, running_mean, running_var, backend, train=train)
    arguments.check_parameter("gamma", gamma, x, layout)
    arguments.check_parameter("beta", beta, x, layout)
    if train and running:
        for name in ("running_mean", "running_var"):
            read = {"gamma": gamma, "beta": beta, "residual": residual, "mask": mask}
            checks.check_apart(name, small[name], read, backend)
    if residual is not None:
        checks.check_like("residual", residual, x)
    if mask is not None:
        mask = arguments.check_mask(mask, x, layout, backend)
    if out is not None:
        checks.check_out(out, x, backend)
        sources = {"residual": residual, **small, "mask": mask}
        checks.check_apart("x" if over_x else "out", out, sources if over_x else {"x": x, **sources}, backend)
    return layout, mask


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


def _views(
    backend: Backend,
    layout: Layout,
    segments: tuple[ghosts.Segment, ...],
    x: Array,
    residual: Array | None,
    out: Array | None,
    parameters: tuple[Array | None, ...],
    copies: int,
) -> tuple[Array | None, ...]:
    """As `Backend.plain_views`, of arrays that were looked at one by one; `out` is None where an op cannot write it."""
    xp = backend.xp
    flat = [None if p is None else contiguous(xp, p, layout.flat) for p in parameters]
    return (
        layout.view(xp, x),
        None if residual is None else layout.view(xp, residual),
        _view_of_out(out, layout, segments, backend),
        *(copy(xp, p) for p in flat[:copies]),
        *flat[copies:],
    )


def _view_of_out(
    out: Array | None, layout: Layout, segments: tuple[ghosts.Segment, ...], backend: Backend
) -> Array | None:
    """`out` as the op can write it, if it has such a view and the op writes all of it."""
    if out is None or segments:
        return None
    view = layout.view(backend.xp, out)
    return view if (layout.plain and is_contiguous(out)) or backend.overlap(view, out) else None


def _result(xp: Any, view: Array, out_view: Array | None, out: Array | None, layout: Layout) -> Array:
    if out is None:
        return layout.restore(xp, view)
    if out_view is None:
        out[...] = layout.restore(xp, view)
    return out
