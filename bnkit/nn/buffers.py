"""Memory of results that serves the next ones, once nothing refers to the results any more."""

import sys
from typing import Any

import numpy as np

from bnkit.backend import Array

_LARGE = 2**22  # bytes from which on an allocator gives memory back to the system, which faults each page of it in anew


class Buffers:
    """Arrays that were given out, and are given out again only when no name, view or cache refers to them.

    Of NumPy arrays alone, each view of which refers to the array that owns the memory; a GPU's library has a pool of
    its own. Two threads may ask at the same time.
    """

    def __init__(self) -> None:
        self._kept: list[Array] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, ()  # a copy or a pickle of a layer has results of its own

    def like(self, x: Array) -> Array | None:
        """An array of the shape, dtype and layout of x, not set; None where x is small, not dense or not NumPy's."""
        if type(x) is not np.ndarray or x.nbytes < _LARGE:
            return None
        lone = object()
        alone = sys.getrefcount(lone)  # of what only a name in this function refers to
        found, in_use = None, []
        while found is None and (kept := self._pop()) is not None:
            if sys.getrefcount(kept) > alone:
                in_use.append(kept)
            elif _alike(kept, x):
                found = kept
        if found is None:
            found = np.empty_like(x)
        self._kept += in_use
        if not _alike(found, x):
            return None
        self._kept.append(found)
        return found

    def _pop(self) -> Array | None:
        """One of the arrays, which no other thread finds before it is put back."""
        try:
            return self._kept.pop(0)
        except IndexError:
            return None


def _alike(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.strides == b.strides)
