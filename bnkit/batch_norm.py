"""batch_norm() and its backward: checks, the way to the 4-D view, and the call of the backend's op."""

from typing import Any, NamedTuple

from . import checks, reference
from . import ghost as ghosts
from .backend import Array, Backend
from .dispatch import (
    BatchNormCache,
    Reduce,
    backward_segment,
    copy,
    infer,
    mask_view,
    one_part,
    statistics_of,
    train_batch,
    train_over_ranks,
)
from .layout import Layout, contiguous, is_contiguous, reshape


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
    out: Array | None = None,
) -> tuple[Array, BatchNormCache]:
    """Batch normalization of x over every axis but `axis`, and the cache for `batch_norm_backward`.

    y = gamma * (x - mean) / sqrt(var + eps) + beta [+ residual] [through ReLU], by the batch's mean and biased variance
    in training and by the running ones in inference. y has the dtype of x and, where x is dense, its memory layout.

    x: float16, bfloat16, float32 or float64, of any backend; dense arrays are read in place, others copied once.
    gamma, beta, running_mean, running_var: shape `tuple(x.shape[a] for a in sorted(axis))`; float32, or float64 for
        float64 x. Training moves the running arrays, which come both or neither, in place: decay * running +
        (1 - decay) * batch, the variance as the squared distances over (count - correction).
    axis: one axis, adjacent axes, or axis 0 (groups, replicas) and one of those.
    mask: bool, True where an element counts in the statistics; broadcastable to x with x.ndim dimensions, or exactly
        the batch axis. Every element is normalized, and passes on its own dy; a masked loss makes that zero.
    activation: None or "relu". residual: an array like x.
    ghost: in training, every so many entries of the batch axis have their own statistics, and so has a remainder; the
        running arrays move once, by the mean of theirs.
    reduce: in training, returns the sum of a small array over all ranks, which makes batch norm synchronous: every
        rank calls it twice here and once in the backward. dgamma and dbeta stay the rank's own.
    out: written and returned instead of a new array; must not overlap x or the residual, but in inference may be x.

    Raises TypeError for a wrong type or dtype or for mixed backends, ValueError for a wrong shape or value and for a
    read-only or overlapping array, before anything is written.
    Source: Ioffe & Szegedy 2015, algorithms 1 and 2.
    """
    backend = checks.one_backend(("x",), (x,))
    xp = backend.xp
    checks.check_options(
        train=train, decay=decay, eps=eps, correction=correction, activation=activation, ghost=ghost, reduce=reduce
    )
    layout = backend.layout(x, axis)
    parameters = (gamma, beta, running_mean, running_var)
    tracked = running_mean is not None and running_var is not None
    plain = (
        mask is ghost is None
        and (tracked or (train and running_mean is running_var))
        and backend.plain(x, (residual, out), parameters, layout.parameters)
    )
    if not plain:
        layout, mask = _checked(backend, x, *parameters, mask, residual, out, train=train, axis=axis, ghost=ghost)
    segments = ghosts.segments(layout, x.shape[layout.batch], ghost if train else None)
    few = ghost is not None or layout.shape[1] * layout.shape[3] <= correction
    if few and train and tracked and mask is reduce is None:
        checks.check_enough(segments, layout, correction)

    shaped = plain and layout.plain  # then a reshape, which costs a sixth, gives the views
    flat = [a.reshape(layout.flat) if plain and a is not None else _flat(xp, a, layout) for a in parameters]
    cache = BatchNormCache(
        backend,
        layout,
        x,
        x.reshape(layout.shape) if shaped else layout.view(xp, x),
        copy(xp, flat[0]),
        copy(xp, flat[1]),
        copy(xp, mask) if train else None,
        activation,
        residual is not None,
        reduce if train else None,
        segments,
        (),
    )
    running = (flat[2], flat[3])
    residual = None if residual is None else layout.view(xp, residual)
    if out is None or (shaped and one_part(segments)):
        out_view = None if out is None else out.reshape(layout.shape)
    else:
        out_view = _view_of_out(out, layout, segments, backend)
    if not train:
        y = infer(cache, running, residual, float(eps), out_view)
    elif reduce is not None:
        y = train_over_ranks(cache, running, residual, float(eps), float(decay), correction, reduce, out_view)
    else:
        y = train_batch(cache, running, residual, float(eps), float(decay), correction, out_view)
    if train and tracked and not plain:
        pairs: tuple[Any, ...] = ((running_mean, running[0]), (running_var, running[1]))
        for own, moved in pairs:
            if not is_contiguous(own) and not backend.overlap(own, moved):  # the op had a contiguous copy
                own[...] = xp.reshape(moved, own.shape)
    if out is x:
        cache.x_view = None
    return _result(xp, y, out_view, out, layout), cache


def batch_norm_backward(dy: Array, cache: BatchNormCache, *, out: Array | None = None) -> BatchNormGrads:
    """The gradients of the `batch_norm` call that returned `cache`; it may be asked any number of times.

    dy and dx have the shape, the dtype and, where it is dense, the memory layout of x. `out` takes dx; it may be dy
    itself, and overlaps neither that in part nor x. After inference the statistics are constants.
    """
    if not isinstance(cache, BatchNormCache):
        raise TypeError(f"cache must be what batch_norm returned, got {type(cache).__name__}")
    backend, layout, xp = cache.backend, cache.layout, cache.backend.xp
    if (found := checks.common_backend(dy=dy, out=out)) is not backend:
        raise TypeError(f"dy must be of the backend of x, {backend.key}, got {found.key}; move it")
    checks.check_like("dy", dy, cache.x)
    if cache.x_view is None:
        raise ValueError("cache must refer to x as it was, but the forward wrote y over it; give that another out")
    if out is not None:
        checks.check_out(out, cache.x, backend)
        if not backend.plain(dy, (cache.x, out), (), ()):
            checks.check_apart("out", out, {"x": cache.x, "dy": None if out is dy else dy}, backend)

    out_view = None if out is None else _view_of_out(out, layout, cache.segments, backend)
    dy_view = layout.view(xp, dy)
    mask = mask_view(xp, cache)
    gamma, beta, statistics = cache.gamma, cache.beta, statistics_of(xp, cache)
    if one_part(cache.segments):
        grads = backward_segment(cache, dy_view, cache.x_view, gamma, beta, mask, statistics[0], out_view)
    else:
        pieces = [
            backward_segment(
                cache,
                ghosts.split(xp, dy_view, segment),
                ghosts.split(xp, cache.x_view, segment),
                ghosts.repeat(xp, gamma, segment),
                ghosts.repeat(xp, beta, segment),
                ghosts.split(xp, mask, segment),
                each,
                None,
            )
            for segment, each in zip(cache.segments, statistics, strict=True)
        ]
        groups = layout.shape[0]
        grads = reference.BatchNormBackward(
            ghosts.join(xp, [p.dx for p in pieces], layout.shape),
            None if gamma is None else ghosts.total(xp, [p.dgamma for p in pieces], groups),
            None if beta is None else ghosts.total(xp, [p.dbeta for p in pieces], groups),
            ghosts.join(xp, [p.dresidual for p in pieces], layout.shape) if cache.has_residual else None,
        )
    return BatchNormGrads(
        _result(xp, grads.dx, out_view, out, layout),
        None if gamma is None else reshape(xp, grads.dgamma, layout.parameters),
        None if beta is None else reshape(xp, grads.dbeta, layout.parameters),
        layout.restore(xp, grads.dresidual) if cache.has_residual else None,
    )


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
) -> tuple[Layout, Array | None]:
    """The layout, and the mask with x.ndim dimensions, of arrays that were looked at one by one."""
    small = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    others = {**small, "mask": mask, "residual": residual, "out": out}
    checks.one_backend(("x", *others), (x, *others.values()))
    checks.check_data("x", x)
    layout = backend.layout(x, axis)
    if ghost is not None:
        layout = ghosts.with_batch_first(layout, tuple(x.shape), axis)
    running = checks.check_running(x, layout, running_mean, running_var, backend, train=train)
    checks.check_parameter("gamma", gamma, x, layout)
    checks.check_parameter("beta", beta, x, layout)
    if train and running:
        for name in ("running_mean", "running_var"):
            checks.check_apart(name, small[name], {"gamma": gamma, "beta": beta}, backend)
    if residual is not None:
        checks.check_like("residual", residual, x)
    if mask is not None:
        mask = checks.check_mask(mask, x, layout, backend)
    if out is not None:
        checks.check_out(out, x, backend)
        sources = {"residual": residual, **small, "mask": mask}
        checks.check_apart("out", out, sources if out is x and not train else {"x": x, **sources}, backend)
    return layout, mask


def _flat(xp: Any, parameter: Array | None, layout: Layout) -> Array | None:
    """A parameter or running array as `(groups, channels)`."""
    return None if parameter is None else contiguous(xp, parameter, layout.flat)


def _view_of_out(out: Array, layout: Layout, segments: tuple[ghosts.Segment, ...], backend: Backend) -> Array | None:
    """`out` as the op can write it, if it has such a view and the op writes all of it."""
    if not one_part(segments):
        return None
    view = layout.view(backend.xp, out)
    return view if (layout.plain and is_contiguous(out)) or backend.overlap(view, out) else None


def _result(xp: Any, view: Array, out_view: Array | None, out: Array | None, layout: Layout) -> Array:
    if out is None:
        return layout.restore(xp, view)
    if out_view is None:
        out[...] = layout.restore(xp, view)
    return out
