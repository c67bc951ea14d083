"""Gradients by central differences, to hold a backward to its forward."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bnkit.backend import Array, checks

__all__ = ["numerical_gradient"]


def numerical_gradient(f: Callable[[], Any], array: Array, h: float = 1e-4) -> np.ndarray:
    """(f(a + h) - f(a - h)) / 2h for each element a of `array`, as float64 of its shape.

    f takes nothing and returns a scalar that depends on `array`, which is moved in place one element at a time and
    put back, also where f raises. The error is of order h² + (precision of f) / h.

        >>> x = np.array([1.0, 2.0, 3.0])
        >>> bnkit.gradcheck.numerical_gradient(lambda: np.sum(x**2), x).round(6)
        array([2., 4., 6.])
    """
    checks.check_function("f", f, "without arguments")
    checks.check_real("h", h)
    if not h > 0:
        raise ValueError(f"h must be above 0, got {h!r}")
    backend = checks.check_array("array", array)
    checks.check_writeable("array", array, backend)
    gradient = np.empty(tuple(array.shape))
    before = backend.to_numpy(array).copy()
    try:
        for index in np.ndindex(*array.shape):
            values = []
            for step in (h, -h):
                array[index] = float(before[index]) + step
                values.append(float(f()))
            array[index] = float(before[index])
            gradient[index] = (values[0] - values[1]) / (2 * h)
    finally:
        array[...] = backend.asarray(before)
    return gradient


def __dir__() -> list[str]:
    return list(__all__)
