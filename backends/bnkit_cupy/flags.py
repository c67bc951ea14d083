"""The kernels' bits of a ReLU as bool: for the reference, which packs them in another order."""

from typing import Any

from bnkit.backend import Array

from .plan import WARP, geometry_of


def unpacked(xp: Any, words: Array, shape: tuple[int, ...], itemsize: int) -> Array:
    """`words` as a bool array of `shape`, the view (groups, rows, channels, inner).

    Bit `lane` of word (tile, walk, v) is element v of the vector that the lane has in the warp's walk of its tile.
    """
    groups, rows, channels, inner = shape
    runs, vector, columns, _, tiles, positions = geometry_of(shape, itemsize)
    lanes = xp.arange(WARP, dtype=xp.uint32)
    bits = (words[..., None] >> lanes) & 1  # tiles, walks, vector, lanes
    bits = xp.reshape(bits, (tiles, -1, vector, WARP // columns, columns))
    bits = xp.permute_dims(bits, (0, 1, 3, 4, 2))  # …, rows of a warp, columns of threads, elements
    bits = xp.reshape(bits, (tiles, -1, columns * vector))[:, :positions, :] != 0
    if runs:
        return xp.permute_dims(xp.reshape(bits, (groups, channels, rows, inner)), (0, 2, 1, 3))
    bits = xp.permute_dims(xp.reshape(bits, (groups, -1, rows, columns * vector)), (0, 2, 1, 3))
    return xp.reshape(bits, (groups, rows, -1, 1))[:, :, :channels, :]
