"""The gradients of batch norm's gradients: the formula in float64, and the way there from a cache.

With g the dy that the ReLU lets through, P(v) = v - Σv / n - x_hat Σ(v x_hat) / n, and Q the transpose of P, which is P
but under a mask, training gives dx = gamma rstd P(g), dgamma = Σ g x_hat, dbeta = Σ g. Of L = Σ ddx dx + Σ ddgamma
dgamma + Σ ddbeta dbeta, x_hat is reached by u = ddgamma g - gamma rstd (ddx Σ(g x_hat) + g Σ(ddx x_hat)) / n, and

    with respect to g      gamma rstd Q(ddx) + ddgamma x_hat + ddbeta
    with respect to gamma  rstd Σ ddx P(g)
    with respect to x      rstd P(u) - gamma rstd² x_hat Σ(ddx P(g)) / n

In inference the statistics are constants: P is the identity, x_hat's last term and all of u but ddgamma g vanish.
Source: the chain rule; what PyTorch's `batchnorm_double_backward` computes.
"""

from typing import Any, NamedTuple

from bnkit import reference
from bnkit.backend import Array, checks
from bnkit.backend.layout import contiguous, reshape
from bnkit.norm import arguments
from bnkit.norm.batch_norm import check_cache
from bnkit.norm.cache import BatchNormCache, statistics_of
from bnkit.norm.segments import Segment, join, repeat, split, total


class BatchNormDoubleGrads(NamedTuple):
    """Gradients with respect to dy, x and gamma; that of gamma is None where there is none."""

    ddy: Array
    dx: Array
    dgamma: Array | None


def batch_norm_double_backward(
    ddx: Array | None,
    ddgamma: Array | None,
    ddbeta: Array | None,
    dy: Array,
    cache: BatchNormCache,
    *,
    ddresidual: Array | None = None,
) -> BatchNormDoubleGrads:
    """The gradients, with respect to dy, x and gamma, of a function of what `batch_norm_backward(dy, cache)` returns.

    ddx, ddgamma, ddbeta, ddresidual: that function's gradients with respect to dx, dgamma, dbeta and dresidual, each
    like what it belongs to; None is zero. They and dy are of x's dtype (of the parameters', ddgamma and ddbeta); so are
    the results, computed in float64. What ReLU let through counts as given: beta and the residual have no gradient.
    Memory is several times that of x in float64, for no kernel does this. x must still have the values that it had in
    the forward, because the cache refers to it.

    Raises NotImplementedError for statistics shared between ranks (`reduce`), whose Σ above are sums over the ranks.
    """
    check_cache(cache)
    for option in ("reduce", "renorm", "in_place"):
        if getattr(cache, option):
            raise NotImplementedError(
                f"batch_norm_double_backward does not know {option}; the formula to extend is in {__name__}"
            )
    big: dict[str, Any] = {"ddx": ddx, "ddresidual": ddresidual}
    small = {"ddgamma": ddgamma, "ddbeta": ddbeta}
    if (found := checks.common_backend(dy=dy, **big, **small)) is not cache.backend:
        raise TypeError(f"dy must be of the backend of x, {cache.backend.key}, got {found.key}; move it")
    for name, array in {"dy": dy, **{k: v for k, v in big.items() if v is not None}}.items():
        checks.check_like(name, array, cache.x)
    for name, array in small.items():
        arguments.check_parameter(name, array, cache.x, cache.layout)
        if array is not None and (cache.gamma if name == "ddgamma" else cache.beta) is None:
            raise ValueError(f"{name} must be None where batch_norm was given no {name[2:]}; leave it out")
    if ddresidual is not None and not cache.has_residual:
        raise ValueError("ddresidual must be None where batch_norm was given no residual; leave it out")
    if cache.x_view is None:
        raise ValueError("cache must refer to x as it was, but the forward wrote y over it; give that another out")
    return _whole(cache, dy, ddx, ddresidual, ddgamma, ddbeta)


def _whole(
    cache: BatchNormCache,
    dy: Array,
    ddx: Array | None,
    ddresidual: Array | None,
    ddgamma: Array | None,
    ddbeta: Array | None,
) -> BatchNormDoubleGrads:
    """All segments of the batch, each by its own statistics, in the shape of x."""
    layout, xp = cache.layout, cache.backend.xp
    views = [None if a is None else layout.view(xp, a) for a in (dy, ddx, ddresidual)]
    views += [cache.x_view, cache.mask_view()]
    flat = [None if a is None else contiguous(xp, a, layout.flat) for a in (ddgamma, ddbeta)]
    segments = cache.segments or (Segment(0, layout.shape[1], 1),)
    results = []
    for segment, (mean, rstd, count, active) in zip(segments, statistics_of(cache), strict=True):
        dy, ddx, ddresidual, x, mask = (split(xp, a, segment) for a in views)
        gamma, beta = (repeat(xp, a, segment) for a in (cache.gamma, cache.beta))
        gate = _gate(cache, x, gamma, beta, mean, rstd, active)
        dd = [repeat(xp, a, segment) for a in flat]
        results.append(
            double_backward(xp, dy, ddx, ddresidual, dd[0], dd[1], x, gamma, mean, rstd, count, mask=mask, gate=gate)
        )
    dtype = cache.x.dtype
    ddy, dx = (join(xp, [xp.astype(p[i], dtype) for p in results], layout.shape) for i in (0, 1))
    dgamma = None
    if cache.gamma is not None:
        dgamma = total(xp, [p[2] for p in results], layout.flat[0])
        dgamma = reshape(xp, xp.astype(dgamma, cache.gamma.dtype), layout.parameters)
    return BatchNormDoubleGrads(layout.restore(xp, ddy), layout.restore(xp, dx), dgamma)


def _gate(
    cache: BatchNormCache,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    active: Array | None,
) -> Array | None:
    """Where the ReLU let through: what a gradient of ones leaves, since a backend's bits are its own."""
    if cache.activation is None:
        return None
    args = reference.BackwardArguments(cache.backend.xp.ones_like(x), x, gamma, beta, mean, rstd, train=False)
    args = args._replace(activation=cache.activation, active=active, residual=True)
    passed: Any = cache.backend.batch_norm_backward(args).dresidual
    return passed != 0


@reference.quiet
def double_backward(
    xp: Any,
    dy: Array,
    ddx: Array | None,
    ddresidual: Array | None,
    ddgamma: Array | None,
    ddbeta: Array | None,
    x: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    count: Array | None,
    *,
    mask: Array | None,
    gate: Array | None,
) -> tuple[Array, Array, Array]:
    """The gradients with respect to dy, x and gamma, in float64, on the 4-D view; without count, of an inference."""
    mask = None if mask is None else xp.broadcast_to(mask, x.shape)
    x_hat = (_wide(xp, x) - _channel(mean)) * _channel(rstd)
    if mask is not None:
        x_hat = xp.where(_channel(rstd) == 0, xp.zeros_like(x_hat), x_hat)
    g, ddx = _only(xp, gate, _wide(xp, dy)), xp.zeros_like(x_hat) if ddx is None else _wide(xp, ddx)
    gamma, ddgamma, ddbeta = (
        xp.full_like(rstd, nothing) if a is None else _wide(xp, a)
        for a, nothing in ((gamma, 1.0), (ddgamma, 0.0), (ddbeta, 0.0))
    )
    scale = _channel(gamma * rstd)
    ddy, u, projected = ddx, g * _channel(ddgamma), g
    n = None if count is None else _channel(xp.where(count > 0, count, xp.ones_like(count)))
    if n is not None:
        sum_g, sum_gx = _sums(xp, g, x_hat, mask)
        sum_ddx, sum_ddxx = _sums(xp, _only(xp, mask, ddx), x_hat, mask)
        projected = g - _only(xp, mask, (sum_g + x_hat * sum_gx) / n)
        ddy = ddx - (sum_ddx + x_hat * sum_ddxx) / n
        u = u - scale * (_only(xp, mask, ddx) * sum_gx + g * sum_ddxx) / n
    ddx_dx = _sum(xp, ddx * projected)
    dgamma = (_channel(rstd) * ddx_dx)[:, 0, :, 0]
    dx = u
    if n is not None:
        sum_u, sum_ux = _sums(xp, u, x_hat, mask)
        dx = u - _only(xp, mask, (sum_u + x_hat * (sum_ux + scale * ddx_dx)) / n)
    ddy = scale * ddy + _channel(ddgamma) * x_hat + _channel(ddbeta)
    if ddresidual is not None:
        ddy = ddy + _wide(xp, ddresidual)
    return _only(xp, gate, ddy), _channel(rstd) * dx, dgamma


def _sums(xp: Any, a: Array, x_hat: Array, mask: Array | None) -> tuple[Array, Array]:
    """Σa and Σ a x_hat; with a mask, no NaN of an x that nothing arrives at."""
    product = a * x_hat
    return _sum(xp, a), _sum(xp, product if mask is None else xp.where(a == 0, xp.zeros_like(a), product))


def _sum(xp: Any, a: Array) -> Array:
    return xp.sum(a, axis=(1, 3), keepdims=True)


def _only(xp: Any, where: Array | None, a: Array) -> Array:
    return a if where is None else xp.where(where, a, xp.zeros_like(a))


def _wide(xp: Any, a: Array) -> Array:
    return xp.astype(a, xp.float64, copy=False)


def _channel(a: Array) -> Array:
    return a[:, None, :, None]
