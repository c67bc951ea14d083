"""Batch renormalization: the batch's statistics in the gradient, the running ones in the value.

y = gamma * (x_hat * r + d) + beta, where r and d, which the backward takes for constants, say how far the batch's
statistics lie from the running ones, within limits. So the ops are those of a batch norm with other parameters.
Source: Ioffe 2017, algorithm 1.
"""

from typing import Any

from bnkit import reference
from bnkit.backend import Array

Correction = tuple[Array, Array]  # r and d, float64


def correction(
    xp: Any,
    moments: reference.Moments,
    running: tuple[Array, Array],
    eps: float,
    limits: tuple[float, float],
) -> Correction:
    """r = std / running_std within [1 / r_max, r_max] and d = (mean - running_mean) / running_std within ±d_max.

    A channel of which the mask left nothing has r = 1 and d = 0.
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
    xp: Any, by: Correction, gamma: Array | None, beta: Array | None, dtype: Any
) -> tuple[Array | None, Array | None]:
    """gamma * r and gamma * d + beta: the parameters of the batch norm that gives the same y."""
    r, d = by
    if gamma is not None:
        gamma = xp.astype(gamma, xp.float64)
        r, d = gamma * r, gamma * d
    if beta is not None:
        d = d + xp.astype(beta, xp.float64)
    return xp.astype(r, dtype), xp.astype(d, dtype)


def gradients(xp: Any, by: Correction, grads: reference.BatchNormBackward) -> reference.BatchNormBackward:
    """The gradients of the own parameters: gamma meets x_hat * r + d."""
    r, d = by
    dgamma = r * xp.astype(grads.dgamma, xp.float64) + d * xp.astype(grads.dbeta, xp.float64)
    return grads._replace(dgamma=xp.astype(dgamma, grads.dgamma.dtype))
