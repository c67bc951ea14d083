"""Layers without parameters, element by element; `bnkit.layers` says how a layer is used."""

from typing import Any

from . import checks
from .backend import Array, Key


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
        xp = _check_backward(dy, cache)
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
        _check_backward(dy, cache)
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
        _check_backward(dy, cache)
        return dy * (1 - cache**2), {}


class Dropout:
    """Inverted dropout: in training an element is 0 with probability `ratio`, else divided by 1 - ratio.

    Which ones is a function of the key (seed, layer, step) alone. Source: Srivastava et al. 2014, section 10.
    """

    def __init__(self, ratio: float = 0.5) -> None:
        checks.check_real("ratio", ratio, least=0.0, below=1.0)
        self.ratio = float(ratio)
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ratio!r})"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array | None]:
        checks.check_bool("train", train)
        backend = checks.check_array("x", x)
        if not train or self.ratio == 0:
            return x, None
        if key is None:
            raise ValueError("key must be a tuple (seed, layer, step) to train with dropout, got None; pass one")
        checks.check_key(key)
        kept = backend.uniform(key, tuple(x.shape)) >= self.ratio
        scale = backend.xp.astype(kept, x.dtype) * (1 / (1 - self.ratio))
        return x * scale, scale

    def backward(self, dy: Array, cache: Array | None) -> tuple[Array, dict[str, Array]]:
        if cache is None:  # of inference, or of a ratio of 0
            checks.check_array("dy", dy)
            return dy, {}
        _check_backward(dy, cache)
        return dy * cache, {}


def _check_backward(dy: Array, cache: Array) -> Any:
    """The array namespace of dy, which has the shape of the array in the cache."""
    xp = checks.check_cache(dy, cache).xp
    checks.check_gradient(dy, tuple(cache.shape))
    return xp
