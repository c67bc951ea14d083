"""Flags packed eight to a byte."""

import math
from typing import Any

from bnkit.reference.array import Array


def pack_bits(xp: Any, flags: Array) -> Array:
    """`flags` in an eighth of the memory: bit k of byte j is flag k * bytes + j."""
    flat = xp.reshape(flags, (-1,))
    total = flat.shape[0]
    size = -(-total // 8)
    packed = xp.zeros_like(flat[:size], dtype=xp.uint8)
    for k in range(8):
        part = flat[min(k * size, total) : min((k + 1) * size, total)]
        packed[: part.shape[0]] |= xp.astype(part, xp.uint8) << k
    return packed


def unpack_bits(xp: Any, packed: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `pack_bits`, as bool of `shape`."""
    flat = xp.concat([(packed >> k) & 1 for k in range(8)])
    return xp.reshape(flat[: math.prod(shape)], shape) != 0
