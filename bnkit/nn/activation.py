"""Activations: layers without parameters, element by element."""

from typing import Any

from bnkit.backend import Array, Key, checks


class ReLU:
    """max(x, 0); its gradient is dy where x is positive and dy * 0 elsewhere."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        xp = checks.check_array("x", x).xp
        y = xp.maximum(x, xp.zeros_like(x[..., :1] if x.ndim else x))
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, dict[str, Array]]:
        xp = check_backward(dy, cache)
        # A product, since NumPy's `where` branches on every element and takes ten times as long.
        return dy * xp.astype(cache > 0, dy.dtype), {}


class Sigmoid:
    """1 / (1 + exp(-x)), without overflow."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        xp = checks.check_array("x", x).xp
        e = xp.exp(-xp.abs(x))
        # e, or 1 where x is positive, by a maximum, since NumPy's `where` branches on every element.
        y = xp.maximum(e, xp.astype(x > 0, x.dtype)) / (1 + e)
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, dict[str, Array]]:
        check_backward(dy, cache)
        return dy * cache * (1 - cache), {}


class Tanh:
    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        y = checks.check_array("x", x).xp.tanh(x)
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, dict[str, Array]]:
        check_backward(dy, cache)
        return dy * (1 - cache**2), {}


def check_backward(dy: Array, cache: Array) -> Any:
    """The array namespace of dy, which has the shape of the array in the cache."""
    xp = checks.check_cache(dy, cache).xp
    checks.check_gradient(dy, tuple(cache.shape))
    return xp
