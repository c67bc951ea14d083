"""batch_norm() and its backward: checks, the way to the 4-D view, and the call of the backend's op."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import checks, reference
from . import ghost as ghosts
from .backend import Array, Backend
from .layout import Layout, contiguous

Reduce = Callable[[Array], Array]


class BatchNormGrads(NamedTuple):
    """Gradients with respect to x, gamma, beta and the residual; None for what was not given."""

    dx: Array
    dgamma: Array | None
    dbeta: Array | None
    dresidual: Array | None


class Statistics(NamedTuple):
    """What the backward needs of one segment, `(groups * parts, channels)`; no number where they are constants."""

    mean: Array
    rstd: Array
    number: Array | None  # of the elements that they came from
    active: Array | None


@dataclass(slots=True, eq=False)
class BatchNormCache:
    """What `batch_norm_backward` needs; opaque. It refers to x, which must not be written to before."""

    backend: Backend
    layout: Layout
    x: Array
    x_view: Array | None  # None where the forward wrote y over x
    gamma: Array | None
    beta: Array | None
    mask: Array | None
    activation: str | None
    has_residual: bool
    reduce: Reduce | None
    segments: tuple[ghosts.Segment, ...]
    statistics: tuple[Statistics, ...]


class _Call(NamedTuple):
    """The checked arguments, as the ops take them."""

    backend: Backend
    x: Array
    gamma: Array | None
    beta: Array | None
    running: tuple[Array | None, Array | None]
    mask: Array | None
    residual: Array | None
    activation: str | None
    eps: float
    out: Array | None


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
    backend = checks.common_backend(
        x=x,
        gamma=gamma,
        beta=beta,
        running_mean=running_mean,
        running_var=running_var,
        mask=mask,
        residual=residual,
        out=out,
    )
    xp = backend.xp
    checks.check_options(
        train=train, decay=decay, eps=eps, correction=correction, activation=activation, ghost=ghost, reduce=reduce
    )
    checks.check_data("x", x)
    layout = backend.layout(x, axis)
    if ghost is not None:
        layout = ghosts.with_batch_first(layout, tuple(x.shape), axis)
    running = checks.check_running(x, layout, running_mean, running_var, backend, train=train)
    checks.check_parameter("gamma", gamma, x, layout)
    checks.check_parameter("beta", beta, x, layout)
    if train and running is not None:
        for name, array in zip(("running_mean", "running_var"), running, strict=True):
            checks.check_apart(name, array, {"gamma": gamma, "beta": beta}, backend)
    if residual is not None:
        checks.check_like("residual", residual, x)
    if mask is not None:
        mask = checks.check_mask(mask, x, layout, backend)
    if out is not None:
        checks.check_out(out, x, backend)
        others = {"residual": residual, "gamma": gamma, "beta": beta, "mask": mask}
        others |= {"running_mean": running_mean, "running_var": running_var}
        checks.check_apart("out", out, others if out is x and not train else {"x": x, **others}, backend)
    segments = ghosts.segments(layout, x.shape[layout.batch], ghost if train else None)
    if train and running is not None and mask is None and reduce is None:
        checks.check_enough(segments, layout, correction)

    call = _Call(
        backend,
        layout.view(xp, x),
        _flat(xp, gamma, layout),
        _flat(xp, beta, layout),
        (_flat(xp, running_mean, layout), _flat(xp, running_var, layout)),
        _mask_view(xp, mask, x, layout) if train else None,
        None if residual is None else layout.view(xp, residual),
        activation,
        float(eps),
        _view_of_out(out, layout, segments, backend),
    )
    if not train:
        y, statistics = _infer(call)
    elif reduce is not None:
        y, statistics = _train_over_ranks(call, reduce, float(decay), correction)
    else:
        y, statistics = _train(call, segments, float(decay), correction)
    if train and running is not None:
        for own, flat in zip(running, call.running, strict=True):
            if not backend.overlap(own, flat):  # the op had a contiguous copy
                own[...] = xp.reshape(flat, own.shape)
    cache = BatchNormCache(
        backend,
        layout,
        x,
        None if out is x else call.x,
        _copy(xp, call.gamma),
        _copy(xp, call.beta),
        _copy(xp, mask) if train else None,
        activation,
        residual is not None,
        reduce if train else None,
        segments,
        tuple(statistics),
    )
    return _result(xp, y, call.out, out, layout), cache


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
        checks.check_apart("out", out, {"x": cache.x, "dy": None if out is dy else dy}, backend)

    out_view = _view_of_out(out, layout, cache.segments, backend)
    dy_view = layout.view(xp, dy)
    mask_view = _mask_view(xp, cache.mask, cache.x, layout)
    pieces = []
    for segment, (mean, rstd, number, active) in zip(cache.segments, cache.statistics, strict=True):
        arrays = (ghosts.split(xp, dy_view, segment), ghosts.split(xp, cache.x_view, segment))
        parameters = (ghosts.repeat(xp, cache.gamma, segment), ghosts.repeat(xp, cache.beta, segment))
        options: dict[str, Any] = {
            "mask": ghosts.split(xp, mask_view, segment),
            "activation": cache.activation,
            "active": active,
        }
        sums = None
        if cache.reduce is not None:
            sums = backend.batch_norm_gradient_sums(*arrays, *parameters, mean, rstd, **options)
            summed = _reduced(cache.reduce, xp.stack(sums))
            sums = (summed[0, ...], summed[1, ...])
        pieces.append(
            backend.batch_norm_backward(
                *arrays,
                *parameters,
                mean,
                rstd,
                train=number is not None,
                count=number,
                sums=sums,
                residual=cache.has_residual,
                out=out_view,
                **options,
            )
        )

    def gradient(parameter: Array | None, parts: list[Array]) -> Array | None:
        if parameter is None:
            return None
        shape = tuple(cache.x.shape[a] for a in layout.axes)
        return xp.reshape(ghosts.total(xp, parts, layout.shape[0]), shape)

    dresidual = None
    if cache.has_residual:
        dresidual = layout.restore(xp, ghosts.join(xp, [p.dresidual for p in pieces], layout.shape))
    dx = ghosts.join(xp, [p.dx for p in pieces], layout.shape)
    return BatchNormGrads(
        _result(xp, dx, out_view, out, layout),
        gradient(cache.gamma, [p.dgamma for p in pieces]),
        gradient(cache.beta, [p.dbeta for p in pieces]),
        dresidual,
    )


def _train(
    call: _Call, segments: tuple[ghosts.Segment, ...], decay: float, correction: int
) -> tuple[Array, list[Statistics]]:
    backend, xp = call.backend, call.backend.xp
    plain = len(segments) == 1 and segments[0].parts == 1
    pieces = [
        backend.batch_norm_train(
            ghosts.split(xp, call.x, segment),
            ghosts.repeat(xp, call.gamma, segment),
            ghosts.repeat(xp, call.beta, segment),
            *(call.running if plain else (None, None)),
            decay=decay,
            eps=call.eps,
            correction=correction,
            mask=ghosts.split(xp, call.mask, segment),
            residual=ghosts.split(xp, call.residual, segment),
            activation=call.activation,
            out=call.out,
        )
        for segment in segments
    ]
    if not plain and call.running[0] is not None:
        ghosts.move_running(xp, *call.running, [p.moments for p in pieces], decay=decay, correction=correction)
    y = ghosts.join(xp, [p.y for p in pieces], call.x.shape)
    return y, [Statistics(p.moments.mean, p.rstd, p.moments.count, p.active) for p in pieces]


@reference.quiet
def _train_over_ranks(call: _Call, reduce: Reduce, decay: float, correction: int) -> tuple[Array, list[Statistics]]:
    """Statistics by two sums over the ranks: of counts and means, then of squared distances from the common mean."""
    backend, xp = call.backend, call.backend.xp
    count, mean, m2 = backend.batch_norm_moments(call.x, mask=call.mask)
    summed = _reduced(reduce, xp.stack([count, count * mean]))
    total = summed[0, ...]
    known = total > 0
    n = xp.where(known, total, xp.ones_like(total))
    common = summed[1, ...] / n
    away = mean - common
    summed = _reduced(reduce, xp.stack([count * away, m2 + count * away**2]))
    common = common + summed[0, ...] / n  # the second look makes it exact for a constant channel
    moments = reference.Moments(total, common, summed[1, ...])
    var = reference.variance(xp, moments, 0)
    rstd = reference.reciprocal_std(xp, var, call.eps)
    x = call.x
    if call.mask is not None:  # of a channel that the mask hides wholly, beta is all that is left
        rstd = xp.where(known, rstd, xp.zeros_like(rstd))
        x = xp.where(known[:, None, :, None], x, xp.zeros_like(x))
    y, active = backend.batch_norm_inference(
        x,
        call.gamma,
        call.beta,
        common,
        var,
        eps=call.eps,
        residual=call.residual,
        activation=call.activation,
        out=call.out,
    )
    if call.running[0] is not None:
        reference.move_running(xp, *call.running, moments, decay=decay, correction=correction)
    return y, [Statistics(common, rstd, total, active)]


def _reduced(reduce: Reduce, part: Array) -> Array:
    summed = reduce(part)
    if tuple(getattr(summed, "shape", ())) != tuple(part.shape):
        raise ValueError(f"reduce must return an array of shape {tuple(part.shape)} as it was given, got {summed!r}")
    return summed


def _infer(call: _Call) -> tuple[Array, list[Statistics]]:
    xp = call.backend.xp
    mean, var = call.running
    # before `out` is written, and in wide copies: the running arrays may move before the backward
    statistics = (xp.astype(mean, xp.float64), reference.reciprocal_std(xp, var, call.eps))
    y, active = call.backend.batch_norm_inference(
        call.x,
        call.gamma,
        call.beta,
        mean,
        var,
        eps=call.eps,
        residual=call.residual,
        activation=call.activation,
        out=call.out,
    )
    return y, [Statistics(*statistics, None, active)]


def _flat(xp: Any, parameter: Array | None, layout: Layout) -> Array | None:
    """A parameter or running array as `(groups, channels)`."""
    return None if parameter is None else contiguous(xp, parameter, (layout.shape[0], layout.shape[2]))


def _mask_view(xp: Any, mask: Array | None, x: Array, layout: Layout) -> Array | None:
    return None if mask is None else layout.view(xp, xp.broadcast_to(mask, x.shape))


def _view_of_out(
    out: Array | None, layout: Layout, segments: tuple[ghosts.Segment, ...], backend: Backend
) -> Array | None:
    """`out` as the op can write it, if it has such a view and the op writes all of it."""
    if out is None or len(segments) > 1 or segments[0].parts > 1:
        return None
    view = layout.view(backend.xp, out)
    return view if backend.overlap(view, out) else None


def _result(xp: Any, view: Array, out_view: Array | None, out: Array | None, layout: Layout) -> Array:
    if out is None:
        return layout.restore(xp, view)
    if out_view is None:
        out[...] = layout.restore(xp, view)
    return out


def _copy(xp: Any, a: Array | None) -> Array | None:
    return None if a is None else xp.astype(a, a.dtype)
