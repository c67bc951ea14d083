"""Batch norm over its own input: y takes the memory of x, and the backward recovers x_hat = (y - beta) / gamma.

y was rounded by u * |y|, where u is the unit roundoff of its dtype, so x_hat is off by u * (|x_hat| + |beta / gamma|).
Plain batch norm does not have the second term. It may be at most the square root of u, which is half the digits.
Source: Rota Bulò, Porzi & Kontschieder 2018, section 3.1 (In-Place ABN).
"""

import math
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, dtype_name
from bnkit.backend.layout import is_contiguous

ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
# Below, y in float16 loses the same share to its subnormal numbers; beyond, gamma² leaves float32.
LEAST, MOST = 2.0**-19, 2.0**40


def check_arrays(backend: Backend, x: Array, x_view: Array, gamma: Array | None, beta: Array | None) -> None:
    """Raise ValueError unless y can be written over x and x_hat recovered from y.

    Reads gamma and beta, so it waits for a device.
    """
    # an empty array overlaps nothing
    if 0 not in x.shape and is_contiguous(x) is False and not backend.overlap(x_view, x):
        raise ValueError(
            f"x must be dense in an order that batch norm reads in place for in_place=True, got strides {x.strides} of "
            f"shape {tuple(x.shape)}; pass a contiguous copy, or in_place=False"
        )
    if gamma is None and beta is None:
        return
    roundoff = ROUNDOFF[dtype_name(x)]
    shift = 0.0 if beta is None else np.abs(backend.to_numpy(beta).astype(np.float64))
    size = 1.0 if gamma is None else np.abs(backend.to_numpy(gamma).astype(np.float64))
    least = np.maximum(shift * math.sqrt(roundoff), LEAST)
    wrong = (size < least) | (size > MOST)  # NaN is neither, and stays in its channel
    if not np.any(wrong):
        return
    worst = tuple(int(i[0]) for i in np.nonzero(wrong))
    size, shift, least = (float(np.broadcast_to(a, wrong.shape)[worst]) for a in (size, shift, least))
    raise ValueError(
        f"gamma must be from {LEAST:.2g} to {MOST:.2g} in size and at least {math.sqrt(roundoff):.2g} * |beta| for "
        f"in_place=True with {dtype_name(x)} x, got {size:.3g} and |beta| {shift:.3g} in channel {worst[-1]}; "
        f"use in_place=False"
    )


def substitutes(xp: Any, gamma: Array | None, beta: Array | None, rstd: Array, y: Array) -> tuple[Array, Array, Array]:
    """The gamma, mean and rstd with which the backward op computes the right gradients from y in place of x.

    The op computes x_hat = (y - mean) * rstd, and scales dx by gamma * rstd.
    """
    mean = xp.zeros_like(rstd) if beta is None else xp.astype(beta, xp.float64)
    inverse = xp.ones_like(rstd)
    scale = rstd
    if gamma is not None:
        gamma = xp.astype(gamma, xp.float64)
        inverse, scale = inverse / gamma, gamma * gamma * rstd
    inverse = xp.where(rstd == 0, xp.zeros_like(rstd), inverse)  # in a channel that the mask hides, y is beta
    return xp.astype(scale, xp.float64 if dtype_name(y) == "float64" else xp.float32), mean, inverse
