"""Every op in plain array-API code: what a kernel must mean, what a backend falls back to, what tests measure against.

`xp` is the array namespace. `x`, `y`, `dy`, `residual` and `mask` are `(groups, rows, channels, inner)`; rows and inner
are reduced. Statistics and parameters are `(groups, channels)`; gamma and beta may be None. All arithmetic is in
float64 whatever the storage, so a mean of 1e4 at a spread of 1 costs a float32 result nothing.

What was written decides the gate of the ReLU: dy passes where y, as it is stored, is above 0. A positive value that the
dtype of x rounds to 0 lets nothing through.
"""

from typing import Any, NamedTuple

import numpy as np

from bnkit.reference.bits import pack_bits, unpack_bits

Array = Any
# Where float64 holds no square of a channel's values, they are divided by a power of two, which costs no digit.
HUGE, TINY, UNIT = 1e130, 1e-130, 2.0**600
SMALLEST_NORMAL = 2.0**-1022  # of float64
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")  # NaN and Inf are no error here


class Moments(NamedTuple):
    """How many elements, their mean, and the sum of their squared distances from it; each `(groups, channels)`.

    Of float64 values from about 1e150 on m2 is inf, and of such below 1e-150 it loses digits.
    """

    count: Array
    mean: Array
    m2: Array


class BatchNormTrain(NamedTuple):
    """A training forward: the output, and what the backward and the running statistics need."""

    y: Array
    moments: Moments
    rstd: Array  # 1 / sqrt(biased variance + eps); 0 where the mask leaves nothing of a channel
    active: Array | None  # with residual and ReLU: where the ReLU let through, one bit an element


class BatchNormBackward(NamedTuple):
    dx: Array
    dgamma: Array
    dbeta: Array
    dresidual: Array | None


@quiet
def batch_norm_moments(xp: Any, x: Array, *, mask: Array | None = None) -> Moments:
    """Count, mean and squared distances of each channel, by two passes; `mask` is True where an element counts.

    The second look at the mean makes it exact for a constant channel.
    """
    (count, mean, m2), unit = _moments_in_units(xp, x, mask, 0.0)
    return Moments(count, mean * unit, m2 * unit * unit)


@quiet
def batch_norm_train(
    xp: Any,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    *,
    decay: float,
    eps: float,
    correction: int,
    mask: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> BatchNormTrain:
    """Normalize each channel of `x` by its own mean and variance, and move the running ones.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, plus the residual, through the activation ("relu" or None).
    Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    in_units, unit = _moments_in_units(xp, x, mask, eps)
    rstd = 1 / xp.sqrt(variance(xp, in_units, 0) + eps / unit / unit) / unit
    rstd = xp.where(in_units.count > 0, rstd, xp.zeros_like(rstd))
    moments = Moments(in_units.count, in_units.mean * unit, in_units.m2 * unit * unit)
    y, active = _normalize(xp, x, gamma, beta, moments.mean, rstd, mask, residual, activation, out)
    if running_mean is not None:
        move_running(xp, running_mean, running_var, moments, decay=decay, correction=correction)
    return BatchNormTrain(y, moments, rstd, active)


@quiet
def batch_norm_inference(
    xp: Any,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    var: Array,
    *,
    eps: float,
    residual: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> tuple[Array, Array | None]:
    """Normalize by statistics that are given, and the ReLU's bits as in training; `var` is biased."""
    rstd = reciprocal_std(xp, var, eps)
    return _normalize(xp, x, gamma, beta, _wide(xp, mean), rstd, None, residual, activation, out)


@quiet
def batch_norm_gradient_sums(
    xp: Any,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    *,
    mask: Array | None = None,
    activation: str | None = None,
    active: Array | None = None,
) -> tuple[Array, Array]:
    """The sums of dy and of dy * x_hat over each channel, in float64: the gradients of beta and gamma."""
    x_hat = _x_hat(xp, x, mean, rstd, mask)
    dy = _through_activation(xp, dy, x_hat, gamma, beta, activation, active)
    return _gradient_sums(xp, dy, x_hat, mask)


@quiet
def batch_norm_backward(
    xp: Any,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    *,
    train: bool,
    count: Array = None,
    sums: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    activation: str | None = None,
    active: Array | None = None,
    residual: bool = False,
    out: Array | None = None,
) -> BatchNormBackward:
    """The gradients of `batch_norm_train` (`train`) or of `batch_norm_inference` (the statistics are constants).

    `count`: in training, how many elements the statistics came from; `sums`: `batch_norm_gradient_sums` over all of
    them, where they are more than this x. dx has the dtype of x; dgamma and dbeta are float32, or float64 for float64.
    Source: Ioffe & Szegedy 2015, section 3, the chain rule collected by Σdy and Σ dy * x_hat.
    """
    x_hat = _x_hat(xp, x, mean, rstd, mask)
    upstream = _through_activation(xp, dy, x_hat, gamma, beta, activation, active)
    dbeta, dgamma = _gradient_sums(xp, upstream, x_hat, mask)
    dx = upstream
    if train:
        total_dbeta, total_dgamma = (dbeta, dgamma) if sums is None else sums
        n = xp.where(count > 0, count, xp.ones_like(count))
        through_statistics = _channel(total_dbeta / n) + x_hat * _channel(total_dgamma / n)
        dx = upstream - _only(xp, mask, through_statistics)
    dx = dx * _channel(rstd) if gamma is None else _scaled(xp, dx, rstd, _wide(xp, gamma))
    parameter = xp.float64 if x.dtype == xp.float64 else xp.float32
    dresidual = xp.astype(upstream, x.dtype) if residual else None  # before `out`, which may be dy
    return BatchNormBackward(
        _store(xp, dx, x.dtype, out), xp.astype(dgamma, parameter), xp.astype(dbeta, parameter), dresidual
    )


@quiet
def move_running(
    xp: Any, running_mean: Array, running_var: Array, moments: Moments, *, decay: float, correction: int
) -> None:
    """Move the running statistics towards `moments`, in place; the variance takes m2 / (count - correction).

    A channel of which the mask left nothing keeps both; one with count ≤ correction keeps its variance.
    Source: Ioffe & Szegedy 2015, algorithm 2, step 10.
    """
    move(xp, running_mean, moments.mean, moments.count > 0, decay=decay)
    move(xp, running_var, variance(xp, moments, correction), moments.count > correction, decay=decay)


@quiet
def move(xp: Any, running: Array, new: Array, known: Array, *, decay: float) -> None:
    """running = decay * running + (1 - decay) * new, in place, where `known`."""
    old = _wide(xp, running)
    running[...] = xp.astype(xp.where(known, decay * old + (1 - decay) * new, old), running.dtype)


@quiet
def variance(xp: Any, moments: Moments, correction: int) -> Array:
    """m2 / (count - correction), and 0 where there are too few to tell."""
    known = moments.count > correction
    n = xp.where(known, moments.count - correction, xp.ones_like(moments.count))
    return xp.where(known, moments.m2 / n, xp.zeros_like(moments.m2))


@quiet
def reciprocal_std(xp: Any, var: Array, eps: float) -> Array:
    """1 / sqrt(var + eps), in float64."""
    return 1 / xp.sqrt(_wide(xp, var) + eps)


def _moments_in_units(xp: Any, x: Array, mask: Array | None, eps: float) -> tuple[Moments, Array | float]:
    """The moments of x / unit, and unit: 1 unless squares of x would leave float64 and eps does not hide it."""
    narrow = x.dtype != xp.float64 or 0 in x.shape
    unit: Array | float = 1.0
    x = _wide(xp, x)
    if mask is not None:
        mask = xp.broadcast_to(mask, x.shape)
    if not narrow:
        size = xp.max(xp.abs(_only(xp, mask, x)), axis=(1, 3), keepdims=True)
        size = xp.maximum(size, xp.full_like(size, eps**0.5))
        one = xp.ones_like(size)
        unit = xp.where(size > HUGE, one * UNIT, xp.where(size < TINY, one / UNIT, one))
        x, unit = x / unit, unit[:, 0, :, 0]
    total = _sum(xp, _only(xp, mask, x))
    count = xp.full_like(total, float(x.shape[1] * x.shape[3])) if mask is None else _sum(xp, _wide(xp, mask))
    n = xp.where(count > 0, count, xp.ones_like(count))
    mean = total / n
    mean = mean + _sum(xp, _only(xp, mask, x - mean)) / n
    m2 = _sum(xp, _only(xp, mask, (x - mean) ** 2))
    return Moments(*(a[:, 0, :, 0] for a in (count, mean, m2))), unit


def _scaled(xp: Any, a: Array, rstd: Array, gamma: Array) -> Array:
    """a * (rstd * gamma), by one after the other where the product of the two leaves float64."""
    product = rstd * gamma
    lost = (xp.isinf(product) | (xp.abs(product) < SMALLEST_NORMAL)) & (gamma != 0)
    first, second = xp.where(lost, rstd, product), xp.where(lost, gamma, xp.ones_like(gamma))
    return a * _channel(first) * _channel(second)


def _normalize(
    xp: Any,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    mask: Array | None,
    residual: Array | None,
    activation: str | None,
    out: Array | None,
) -> tuple[Array, Array | None]:
    y = _affine(xp, _x_hat(xp, x, mean, rstd, mask), gamma, beta)
    if residual is not None:
        y = y + _wide(xp, residual)
    active = None
    if activation is not None:
        if residual is not None:
            active = pack_bits(xp, _stored_above_zero(xp, y, x.dtype))
        y = xp.maximum(y, xp.zeros_like(y))
    return _store(xp, y, x.dtype, out), active


def _x_hat(xp: Any, x: Array, mean: Array, rstd: Array, mask: Array | None) -> Array:
    x_hat = (_wide(xp, x) - _channel(mean)) * _channel(rstd)
    if mask is None:
        return x_hat
    return xp.where(_channel(rstd) == 0, xp.zeros_like(x_hat), x_hat)  # what the mask hides may be NaN


def _affine(xp: Any, x_hat: Array, gamma: Array | None, beta: Array | None) -> Array:
    y = x_hat if gamma is None else x_hat * _channel(_wide(xp, gamma))
    return y if beta is None else y + _channel(_wide(xp, beta))


def _through_activation(
    xp: Any,
    dy: Array,
    x_hat: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: str | None,
    active: Array | None,
) -> Array:
    """dy where the ReLU let through, which without a residual x itself still tells."""
    upstream = _wide(xp, dy)
    if activation is None:
        return upstream
    if active is None:
        let_through = _stored_above_zero(xp, _affine(xp, x_hat, gamma, beta), dy.dtype)
    else:
        let_through = unpack_bits(xp, active, dy.shape)
    return xp.where(let_through, upstream, xp.zeros_like(upstream))


def _stored_above_zero(xp: Any, y: Array, dtype: Any) -> Array:
    return _wide(xp, xp.astype(y, dtype)) > 0  # a comparison in bfloat16 is not every library's


def _gradient_sums(xp: Any, dy: Array, x_hat: Array, mask: Array | None) -> tuple[Array, Array]:
    product = dy * x_hat
    if mask is not None:  # no gradient arrives at a masked element, then none may come of a NaN there
        product = xp.where(dy == 0, xp.zeros_like(dy), product)
    return _sum(xp, dy)[:, 0, :, 0], _sum(xp, product)[:, 0, :, 0]


def _store(xp: Any, a: Array, dtype: Any, out: Array | None) -> Array:
    a = xp.astype(a, dtype)
    if out is None:
        return a
    out[...] = a
    return out


def _wide(xp: Any, a: Array) -> Array:
    return xp.astype(a, xp.float64, copy=False)


def _sum(xp: Any, a: Array) -> Array:
    return xp.sum(a, axis=(1, 3), keepdims=True)


def _only(xp: Any, mask: Array | None, a: Array) -> Array:
    return a if mask is None else xp.where(mask, a, xp.zeros_like(a))


def _channel(a: Array) -> Array:
    """A `(groups, channels)` array, ready to meet a 4-D one."""
    return a[:, None, :, None]
