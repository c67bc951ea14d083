"""Reuse of the memory of results that nothing refers to any more."""

import sys
from typing import Any

import numpy as np

from bnkit.backend import Array

_LARGE = 2**22  # bytes: above this size a freed array returns to the system, and a new one faults in every page


class Buffers:
    """A pool of results. It returns an array again only when no name, view or cache refers to it.

    It works for NumPy arrays, whose views all refer to the array that owns the memory; CuPy has its memory pool.
    Threads may call it at the same time.
    """

    def __init__(self) -> None:
        self._arrays: list[Array] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, ()  # a copied or unpickled layer starts with an empty pool

    def like(self, x: Array) -> Array | None:
        """An uninitialized array of x's shape, dtype and layout; None if x is small, not dense or not a NumPy array."""
        if type(x) is not np.ndarray or x.nbytes < _LARGE:
            return None
        lone = object()
        free = sys.getrefcount(lone)  # the count of an object to which only a name in this function refers
        result, in_use = None, []
        while result is None and (array := self._pop()) is not None:
            if sys.getrefcount(array) > free:
                in_use.append(array)
            elif _alike(array, x):
                result = array
        if result is None:
            result = np.empty_like(x)
        self._arrays += in_use
        if not _alike(result, x):
            return None
        self._arrays.append(result)
        return result

    def _pop(self) -> Array | None:
        """Take the oldest array out, so that no other thread sees it; None if there is none."""
        try:
            return self._arrays.pop(0)
        except IndexError:
            return None


def _alike(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.strides == b.strides)
