"""The backward of batch norm: the sums over a channel, and the gradients that follow from them.

Shapes are those of the forward; `dy` is like `x`. The stored output decides the gate of the ReLU.
"""

from typing import Any, NamedTuple

from bnkit.reference.array import Array, channel, channel_sum, only, quiet, store, wide
from bnkit.reference.batch_norm import affine, normalized, stored_above_zero
from bnkit.reference.bits import unpack_bits

SMALLEST_NORMAL = 2.0**-1022  # of float64


class GradientSumsArguments(NamedTuple):
    """mean, rstd: the statistics that normalized x. active: the bits of the ReLU after a residual."""

    dy: Array
    x: Array
    gamma: Array | None
    beta: Array | None
    mean: Array
    rstd: Array
    mask: Array | None = None
    activation: str | None = None
    active: Array | None = None


class BackwardArguments(NamedTuple):
    """train: whether the statistics depend on x; in inference they are constants.

    count: in training, the number of elements behind the statistics. sums: the result of `batch_norm_gradient_sums`
    over all of these elements, where they are more than this x. residual: whether there was one. out: takes dx.
    """

    dy: Array
    x: Array
    gamma: Array | None
    beta: Array | None
    mean: Array
    rstd: Array
    train: bool
    count: Any = None  # an Array or None; the method tuple.count bars the type
    sums: tuple[Array, Array] | None = None
    mask: Array | None = None
    activation: str | None = None
    active: Array | None = None
    residual: bool = False
    out: Array | None = None


class BatchNormBackward(NamedTuple):
    """dx and dresidual in the dtype of x; dgamma and dbeta in float32, or in float64 for float64 x."""

    dx: Array
    dgamma: Array
    dbeta: Array
    dresidual: Array | None


@quiet
def batch_norm_gradient_sums(xp: Any, args: GradientSumsArguments) -> tuple[Array, Array]:
    """The sums of dy and of dy * x_hat over each channel, in float64: the gradients of beta and gamma."""
    x_hat = normalized(xp, args.x, args.mean, args.rstd, args.mask)
    return _gradient_sums(xp, _through_activation(xp, args, x_hat), x_hat, args.mask)


@quiet
def batch_norm_backward(xp: Any, args: BackwardArguments) -> BatchNormBackward:
    """The gradients of `batch_norm_train`, or of `batch_norm_inference` with train=False.

    Source: Ioffe & Szegedy 2015, section 3, the chain rule collected by Σdy and Σ dy * x_hat.
    """
    x, rstd, mask = args.x, args.rstd, args.mask
    x_hat = normalized(xp, x, args.mean, rstd, mask)
    upstream = _through_activation(xp, args, x_hat)
    dbeta, dgamma = _gradient_sums(xp, upstream, x_hat, mask)
    dx = upstream
    if args.train:
        total_dbeta, total_dgamma = (dbeta, dgamma) if args.sums is None else args.sums
        n = xp.where(args.count > 0, args.count, xp.ones_like(args.count))
        through_statistics = channel(total_dbeta / n) + x_hat * channel(total_dgamma / n)
        dx = upstream - only(xp, mask, through_statistics)
    dx = dx * channel(rstd) if args.gamma is None else _scaled(xp, dx, rstd, wide(xp, args.gamma))
    parameter = xp.float64 if x.dtype == xp.float64 else xp.float32
    dresidual = xp.astype(upstream, x.dtype) if args.residual else None  # before `out`, which may be dy
    return BatchNormBackward(
        store(xp, dx, x.dtype, args.out), xp.astype(dgamma, parameter), xp.astype(dbeta, parameter), dresidual
    )


def _scaled(xp: Any, a: Array, rstd: Array, gamma: Array) -> Array:
    """a * (rstd * gamma); two multiplications where the product rstd * gamma leaves float64."""
    product = rstd * gamma
    lost = (xp.isinf(product) | (xp.abs(product) < SMALLEST_NORMAL)) & (gamma != 0)
    first, second = xp.where(lost, rstd, product), xp.where(lost, gamma, xp.ones_like(gamma))
    return a * channel(first) * channel(second)


def _through_activation(xp: Any, args: GradientSumsArguments | BackwardArguments, x_hat: Array) -> Array:
    """dy where the ReLU passed its input. Without a residual, x alone decides that."""
    upstream = wide(xp, args.dy)
    if args.activation is None:
        return upstream
    if args.active is None:
        passed = stored_above_zero(xp, affine(xp, x_hat, args.gamma, args.beta), args.dy.dtype)
    else:
        passed = unpack_bits(xp, args.active, args.dy.shape)
    return xp.where(passed, upstream, xp.zeros_like(upstream))


def _gradient_sums(xp: Any, dy: Array, x_hat: Array, mask: Array | None) -> tuple[Array, Array]:
    product = dy * x_hat
    if mask is not None:  # a masked element with dy = 0 adds nothing, even if x is NaN there
        product = xp.where(dy == 0, xp.zeros_like(dy), product)
    return channel_sum(xp, dy)[:, 0, :, 0], channel_sum(xp, product)[:, 0, :, 0]
