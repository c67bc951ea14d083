"""The four ways of a batch-norm call to the backend's ops, and what its backward remembers of it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit import reference
from bnkit.backend import Array, Backend, dtype_name
from bnkit.backend.layout import Layout
from bnkit.norm import ghost as ghosts
from bnkit.norm import in_place as in_places
from bnkit.norm import renorm as renorms
from bnkit.norm import synchronous as ranks
from bnkit.norm.synchronous import Reduce

# What the backward needs of one segment: mean, rstd and, of the elements that they came from, the number, each
# `(groups * parts, channels)`, and `active`. There is no number where they are constants.
Statistics = tuple[Array, Array, Array | None, Array | None]


class Constants(NamedTuple):
    """The running statistics of an inference, of which its backward, if one comes, makes `Statistics`."""

    mean: Array
    var: Array
    eps: float
    active: Array | None


@dataclass(slots=True, eq=False, repr=False)
class BatchNormCache:
    """What `batch_norm_backward` needs; opaque. It refers to x, which must keep its values until then."""

    backend: Backend
    layout: Layout
    x: Array  # y, where the forward is in place
    x_view: Array | None  # None where the forward wrote y over x and cannot recover that
    gamma: Array | None
    beta: Array | None
    mask: Array | None
    activation: str | None
    has_residual: bool
    reduce: Reduce | None
    segments: tuple[ghosts.Segment, ...]  # none where the batch is whole
    statistics: tuple[Statistics, ...] | Constants
    in_place: bool = False
    renorm: renorms.Correction | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {dtype_name(self.x)} {tuple(self.x.shape)} on {self.backend.key}>"


def train_batch(
    cache: BatchNormCache,
    running: tuple[Array | None, Array | None],
    residual: Array | None,
    eps: float,
    decay: float,
    correction: int,
    out: Array | None,
    apart: bool,
) -> Array:
    """y, as all four ways leave it; the statistics go into the cache. `apart`: no op moves these running arrays."""
    own = (None, None) if apart else running
    y, moments, rstd, active = cache.backend.batch_norm_train(
        cache.x_view,
        cache.gamma,
        cache.beta,
        own[0],
        own[1],
        decay=decay,
        eps=eps,
        correction=correction,
        mask=None if cache.mask is None else mask_view(cache),
        residual=residual,
        activation=cache.activation,
        out=out,
    )
    if apart:
        reference.move_running(cache.backend.xp, *running, moments, decay=decay, correction=correction)
    cache.statistics = ((moments.mean, rstd, moments.count, active),)
    return y


def _parameter_dtype(xp: Any, x: Array) -> Any:
    return xp.float64 if dtype_name(x) == "float64" else xp.float32


def train_ghosts(
    cache: BatchNormCache,
    running: tuple[Array | None, Array | None],
    residual: Array | None,
    eps: float,
    decay: float,
    correction: int,
) -> Array:
    """Each segment by its own statistics."""
    backend, xp, x, mask = cache.backend, cache.backend.xp, cache.x_view, mask_view(cache)
    pieces = [
        backend.batch_norm_train(
            ghosts.split(xp, x, segment),
            ghosts.repeat(xp, cache.gamma, segment),
            ghosts.repeat(xp, cache.beta, segment),
            None,
            None,
            decay=decay,
            eps=eps,
            correction=correction,
            mask=ghosts.split(xp, mask, segment),
            residual=ghosts.split(xp, residual, segment),
            activation=cache.activation,
        )
        for segment in cache.segments
    ]
    if running[0] is not None:
        ghosts.move_running(xp, *running, [p.moments for p in pieces], decay=decay, correction=correction)
    cache.statistics = tuple((p.moments.mean, p.rstd, p.moments.count, p.active) for p in pieces)
    return ghosts.join(xp, [p.y for p in pieces], cache.layout.shape)


def backward_batch(cache: BatchNormCache, dy: Array, out: Array | None) -> reference.BatchNormBackward:
    mask = None if cache.mask is None else mask_view(cache)
    return _backward(cache, dy, cache.x_view, cache.gamma, cache.beta, mask, statistics_of(cache)[0], out)


def backward_ghosts(cache: BatchNormCache, dy: Array) -> reference.BatchNormBackward:
    """Each segment by its own statistics; the gradients of the shared parameters are the sums of its parts'."""
    xp, x, mask, shape = cache.backend.xp, cache.x_view, mask_view(cache), cache.layout.shape
    pieces = [
        _backward(
            cache,
            ghosts.split(xp, dy, segment),
            ghosts.split(xp, x, segment),
            ghosts.repeat(xp, cache.gamma, segment),
            ghosts.repeat(xp, cache.beta, segment),
            ghosts.split(xp, mask, segment),
            statistics,
            None,
        )
        for segment, statistics in zip(cache.segments, statistics_of(cache), strict=True)
    ]
    return reference.BatchNormBackward(
        ghosts.join(xp, [p.dx for p in pieces], shape),
        ghosts.total(xp, [p.dgamma for p in pieces], shape[0]),
        ghosts.total(xp, [p.dbeta for p in pieces], shape[0]),
        ghosts.join(xp, [p.dresidual for p in pieces], shape) if cache.has_residual else None,
    )


def _backward(
    cache: BatchNormCache,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mask: Array | None,
    statistics: Statistics,
    out: Array | None,
) -> reference.BatchNormBackward:
    backend, activation, xp = cache.backend, cache.activation, cache.backend.xp
    mean, rstd, number, active = statistics
    if cache.renorm is not None:
        gamma, beta = renorms.parameters(xp, cache.renorm, gamma, beta, _parameter_dtype(xp, x))
    if cache.in_place:
        gamma, mean, rstd = in_places.substitutes(xp, gamma, beta, rstd, _parameter_dtype(xp, x))
    sums = None
    if cache.reduce is not None:
        sums = backend.batch_norm_gradient_sums(
            dy, x, gamma, beta, mean, rstd, mask=mask, activation=activation, active=active
        )
        summed = ranks.reduced(backend, cache.reduce, xp.stack(sums))
        sums = (summed[0, ...], summed[1, ...])
    grads = backend.batch_norm_backward(
        dy,
        x,
        gamma,
        beta,
        mean,
        rstd,
        train=number is not None,
        count=number,
        sums=sums,
        mask=mask,
        activation=activation,
        active=active,
        residual=cache.has_residual,
        out=out,
    )
    return grads if cache.renorm is None else renorms.gradients(xp, cache.renorm, grads)


@reference.quiet
def train_by_moments(
    cache: BatchNormCache,
    running: tuple[Array | None, Array | None],
    residual: Array | None,
    eps: float,
    decay: float,
    correction: int,
    renorm: tuple[float, float] | None,
    out: Array | None,
) -> Array:
    """The moments first, by all ranks where those reduce, then y, which may be written over x."""
    backend, xp, x, mask = cache.backend, cache.backend.xp, cache.x_view, mask_view(cache)
    if cache.reduce is None:
        moments = backend.batch_norm_moments(x, mask=mask)
    else:
        moments = ranks.moments(backend, x, mask, cache.reduce)
    var = reference.variance(xp, moments, 0)
    rstd = reference.reciprocal_std(xp, var, eps)
    if mask is not None:  # of a channel that the mask hides wholly, beta is all that is left
        known = moments.count > 0
        rstd = xp.where(known, rstd, xp.zeros_like(rstd))
        x = xp.where(known[:, None, :, None], x, xp.zeros_like(x))
    gamma, beta = cache.gamma, cache.beta
    if renorm is not None:
        cache.renorm = renorms.correction(xp, moments, running, eps, renorm)
        gamma, beta = renorms.parameters(xp, cache.renorm, gamma, beta, _parameter_dtype(xp, x))
    y, active = backend.batch_norm_inference(
        x, gamma, beta, moments.mean, var, eps=eps, residual=residual, activation=cache.activation, out=out
    )
    if running[0] is not None:
        reference.move_running(xp, *running, moments, decay=decay, correction=correction)
    cache.statistics = ((moments.mean, rstd, moments.count, active),)
    return y


def infer(
    cache: BatchNormCache,
    running: tuple[Array, Array],
    residual: Array | None,
    eps: float,
    out: Array | None,
) -> Array:
    """By copies of the running arrays, which may move before the backward."""
    mean, var = running
    y, active = cache.backend.batch_norm_inference(
        cache.x_view,
        cache.gamma,
        cache.beta,
        mean,
        var,
        eps=eps,
        residual=residual,
        activation=cache.activation,
        out=out,
    )
    cache.statistics = Constants(mean, var, eps, active)
    return y


def statistics_of(cache: BatchNormCache) -> tuple[Statistics, ...]:
    if not isinstance(cache.statistics, Constants):
        return cache.statistics
    xp = cache.backend.xp
    mean, var, eps, active = cache.statistics
    return ((xp.astype(mean, xp.float64), reference.reciprocal_std(xp, var, eps), None, active),)


def seen(cache: BatchNormCache) -> bool:
    """Whether any rank of a synchronous training had an element; waits for a device."""
    number = None if isinstance(cache.statistics, Constants) else cache.statistics[0][2]
    return number is not None and 0 not in number.shape and float(cache.backend.xp.max(number)) > 0


def mask_view(cache: BatchNormCache) -> Array | None:
    xp = cache.backend.xp
    return None if cache.mask is None else cache.layout.view(xp, xp.broadcast_to(cache.mask, cache.x.shape))


def copy(xp: Any, a: Array | None) -> Array | None:
    if a is None:
        return None
    try:
        return a.astype(a.dtype)  # as with `reshape`, NumPy's function takes six times as long
    except AttributeError:
        return xp.astype(a, a.dtype)
