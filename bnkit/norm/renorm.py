"""Batch renormalization: the batch's statistics in the gradient, the running ones in the value.

y = gamma * (x_hat * r + d) + beta. r and d say how far the batch's statistics lie from the running ones, within limits.
The backward takes them as constants. So the ops are those of plain batch norm with other parameters.
Source: Ioffe 2017, algorithm 1.
"""

from typing import Any

from bnkit import reference
from bnkit.backend import Array, dtype_name

Correction = tuple[Array, Array]  # r and d, float64


def correction(
    xp: Any,
    moments: reference.Moments,
    running: tuple[Array, Array],
    eps: float,
    limits: tuple[float, float],
) -> Correction:
    """r = std / running_std within [1 / r_max, r_max] and d = (mean - running_mean) / running_std within ±d_max.

    A channel that the mask hides has r = 1 and d = 0.
    """
    r_max, d_max = map(float, limits)
    running_rstd = reference.reciprocal_std(xp, running[1], eps)
    r = running_rstd / reference.reciprocal_std(xp, reference.variance(xp, moments, 0), eps)
    d = (moments.mean - xp.astype(running[0], xp.float64)) * running_rstd
    one = xp.ones_like(r)
    r = xp.minimum(xp.maximum(r, one / r_max), one * r_max)
    d = xp.minimum(xp.maximum(d, -d_max * one), d_max * one)
    known = moments.count > 0
    return xp.where(known, r, one), xp.where(known, d, xp.zeros_like(d))


def parameters(
    xp: Any, correction: Correction, gamma: Array | None, beta: Array | None, x: Array
) -> tuple[Array, Array]:
    """gamma * r and gamma * d + beta: the parameters with which plain batch norm of x gives the same y."""
    r, d = correction
    if gamma is not None:
        gamma = xp.astype(gamma, xp.float64)
        r, d = gamma * r, gamma * d
    if beta is not None:
        d = d + xp.astype(beta, xp.float64)
    dtype = xp.float64 if dtype_name(x) == "float64" else xp.float32
    return xp.astype(r, dtype), xp.astype(d, dtype)


def gradients(xp: Any, correction: Correction, grads: reference.BatchNormBackward) -> reference.BatchNormBackward:
    """The gradients of the caller's parameters: gamma multiplies x_hat * r + d."""
    r, d = correction
    dgamma = r * xp.astype(grads.dgamma, xp.float64) + d * xp.astype(grads.dbeta, xp.float64)
    return grads._replace(dgamma=xp.astype(dgamma, grads.dgamma.dtype))
