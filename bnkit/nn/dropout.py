"""The layer `Dropout`."""

from bnkit.backend import Array, Key, checks
from bnkit.nn.activation import check_backward
from bnkit.nn.layer import Arrays


class Dropout:
    """Inverted dropout: in training an element becomes 0 with probability `ratio`, else it is divided by 1 - ratio.

    The key (seed, layer, step) alone decides which elements become 0. Inference returns x.
    Source: Srivastava et al. 2014, section 10.

        >>> y, _ = bnkit.Dropout(0.5).forward(np.ones(1000, np.float32), train=True, key=(0, 1, 0))
        >>> np.unique(y)
        array([0., 2.], dtype=float32)
    """

    identity_in_inference = True

    def __init__(self, ratio: float = 0.5) -> None:
        checks.check_real("ratio", ratio, least=0.0, below=1.0)
        self.ratio = float(ratio)
        self.params: Arrays = {}
        self.state: Arrays = {}

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
        mask = backend.uniform(key, tuple(x.shape)) >= self.ratio
        scale = backend.xp.astype(mask, x.dtype) * (1 / (1 - self.ratio))
        return x * scale, scale

    def backward(self, dy: Array, cache: Array | None) -> tuple[Array, Arrays]:
        if cache is None:  # after inference, or with a ratio of 0
            checks.check_array("dy", dy)
            return dy, {}
        check_backward(dy, cache)
        return dy * cache, {}
