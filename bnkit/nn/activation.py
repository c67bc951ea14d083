"""Activations: layers without parameters that map each element separately."""

from typing import Any

from bnkit.backend import Array, Key, checks
from bnkit.nn.layer import Arrays


class _Activation:
    """A layer without parameters and state, whose cache is y."""

    def __init__(self) -> None:
        self.params: Arrays = {}
        self.state: Arrays = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ReLU(_Activation):
    """max(x, 0); the gradient is dy where x is positive and dy * 0 elsewhere.

    >>> bnkit.ReLU().forward(np.array([-1.0, 2.0]), train=True)[0]
    array([0., 2.])
    """

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        xp = checks.check_array("x", x).xp
        y = xp.maximum(x, xp.zeros_like(x[..., :1] if x.ndim else x))
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, Arrays]:
        xp = check_backward(dy, cache)
        # A product: NumPy's `where` branches on every element and takes ten times as long.
        return dy * xp.astype(cache > 0, dy.dtype), {}


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)), without overflow.

    >>> bnkit.Sigmoid().forward(np.array([-1e4, 0.0]), train=True)[0]
    array([0. , 0.5])
    """

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        xp = checks.check_array("x", x).xp
        e = xp.exp(-xp.abs(x))
        # The numerator is e, or 1 where x is positive. A maximum: NumPy's `where` branches on every element.
        y = xp.maximum(e, xp.astype(x > 0, x.dtype)) / (1 + e)
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, Arrays]:
        check_backward(dy, cache)
        return dy * cache * (1 - cache), {}


class Tanh(_Activation):
    """The hyperbolic tangent of x.

    >>> bnkit.Tanh().forward(np.array([-1e4, 0.0]), train=True)[0]
    array([-1.,  0.])
    """

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        y = checks.check_array("x", x).xp.tanh(x)
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, Arrays]:
        check_backward(dy, cache)
        return dy * (1 - cache**2), {}


def check_backward(dy: Array, cache: Array) -> Any:
    """The array namespace of dy; ValueError unless dy has the shape of the cached array."""
    xp = checks.check_cache(dy, cache).xp
    checks.check_gradient(dy, tuple(cache.shape))
    return xp
