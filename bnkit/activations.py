"""Layers without parameters, element by element; `bnkit.layers` says how a layer is used."""

from . import checks
from .backend import Array, Key, backend_of


class ReLU:
    """max(x, 0); its gradient is dy where x is positive and dy * 0 elsewhere."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        xp = backend_of(x).xp
        y = xp.maximum(x, xp.zeros_like(x[..., :1]))
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, dict[str, Array]]:
        # A product, since NumPy's `where` branches on every element and takes ten times as long.
        return dy * backend_of(dy).xp.astype(cache > 0, dy.dtype), {}


class Sigmoid:
    """1 / (1 + exp(-x)), without overflow."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        xp = backend_of(x).xp
        e = xp.exp(-xp.abs(x))
        # e, or 1 where x is positive, by a maximum, since NumPy's `where` branches on every element.
        y = xp.maximum(e, xp.astype(x > 0, x.dtype)) / (1 + e)
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, dict[str, Array]]:
        return dy * cache * (1 - cache), {}


class Tanh:
    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        y = backend_of(x).xp.tanh(x)
        return y, y

    def backward(self, dy: Array, cache: Array) -> tuple[Array, dict[str, Array]]:
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
        if not train or self.ratio == 0:
            return x, None
        if not isinstance(key, tuple) or len(key) != 3:
            raise ValueError(f"key must be (seed, layer, step) to train with dropout, got {key!r}")
        backend = backend_of(x)
        kept = backend.uniform(key, tuple(x.shape)) >= self.ratio
        scale = backend.xp.astype(kept, x.dtype) * (1 / (1 - self.ratio))
        return x * scale, scale

    def backward(self, dy: Array, cache: Array | None) -> tuple[Array, dict[str, Array]]:
        return (dy if cache is None else dy * cache), {}
