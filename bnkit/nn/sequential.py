"""The layer `Sequential`."""

import itertools
from collections.abc import Sequence

from bnkit.backend import Array, Key, checks
from bnkit.backend.messages import shown
from bnkit.nn.layer import Arrays, Cache, Layer, leaves, needs_output, optional, part


class Sequential:
    """Layers one after the other; parameters, state and gradients are named "0.weight", "1.gamma", …

    `params` and `state` are new dictionaries of the layers' arrays: write into the arrays to change them. `frozen` has
    the parameters of frozen batch norms. Any object with the members of `bnkit.nn.layer.Layer` is a layer.

    The constructor fuses neighbours, such as BatchNorm and the ReLU after it, which one pass then computes. It refuses
    a layer that overwrites its input after a layer that needs its output. A later change of a layer's `activation` or
    `in_place` has no effect on this. All other attributes take effect at the next forward: decay, reduce, renorm,
    freeze().

        >>> network = bnkit.Sequential(bnkit.Linear(64, 100), bnkit.BatchNorm(100), bnkit.ReLU(), bnkit.Linear(100, 10))
        >>> x = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
        >>> y, caches = network.forward(x, train=True)
        >>> dx, grads = network.backward(np.ones_like(y), caches)
        >>> dx.shape, sorted(grads)
        ((32, 64), ['0.bias', '0.weight', '1.beta', '1.gamma', '3.bias', '3.weight'])

    Raises TypeError for an object without forward and backward, ValueError for no layers and for such neighbours.
    """

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("layers must be at least one, got none; pass layers one by one")
        for layer in layers:
            if isinstance(layer, type) or not (hasattr(layer, "forward") and hasattr(layer, "backward")):
                remedy = "make a layer of the class" if isinstance(layer, type) else "pass layers one by one"
                raise TypeError(f"layers must have forward and backward, got {shown(layer)}; {remedy}")
        _check_in_place(layers)
        self.layers = layers
        self.in_place = bool(getattr(layers[0], "in_place", False))
        self._draws = [getattr(layer, "draws", 1) for layer in layers]
        self.draws = sum(self._draws)
        self._forwards = _forwards(layers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    @property
    def params(self) -> Arrays:
        return _named([layer.params for layer in self.layers])

    @property
    def state(self) -> Arrays:
        return _named([layer.state for layer in self.layers])

    @property
    def frozen(self) -> Arrays:
        return _named([getattr(layer, "frozen", {}) for layer in self.layers])

    @property
    def needs_output(self) -> bool:
        return needs_output(self.layers[-1])

    def leaves(self) -> list[Layer]:
        return [leaf for layer in self.layers for leaf in leaves(layer)]

    def part(self, replicas: slice) -> "Sequential":
        """The network of a slice of the replicas, on the same memory."""
        return Sequential(*(part(layer, replicas) for layer in self.layers))

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, list[Cache]]:
        """y, and the caches of the layers. They may refer to x and y, which must not change before the backward.

        With key (seed, n, step) the first layer draws from that key, the next one from (seed, n + 1, step), and so on.
        A nested Sequential uses as many numbers as it has layers.
        """
        checks.check_bool("train", train)
        checks.check_key(key)
        caches: list[Cache] = []
        for layer, forward, draws in zip(self.layers, self._forwards, self._draws, strict=True):
            cache = None
            if forward is not None:
                x, cache = getattr(layer, forward)(x, train=train, key=key)
            caches.append(cache)
            key = None if key is None else (key[0], key[1] + draws, key[2])
        return x, caches

    def backward(self, dy: Array, cache: list[Cache]) -> tuple[Array, Arrays]:
        """dx, and the gradients by the names of `params`."""
        self._check_caches(cache)
        dx, grads = self._backward(dy, cache, 0)
        return dx, _named(grads)

    def gradients(self, dy: Array, cache: list[Cache]) -> Arrays:
        """The gradients of the parameters alone. A first Linear skips the product for dx."""
        first = optional(self.layers[0], "gradients")
        if first is None:
            return self.backward(dy, cache)[1]
        self._check_caches(cache)
        dy, grads = self._backward(dy, cache, 1)
        return _named([first(dy, cache[0]), *grads[1:]])

    def _backward(self, dy: Array, cache: list[Cache], start: int) -> tuple[Array, list[Arrays]]:
        grads: list[Arrays] = [{} for _ in self.layers]
        for i in reversed(range(start, len(self.layers))):
            if self._forwards[i] is not None:
                dy, grads[i] = self.layers[i].backward(dy, cache[i])
        return dy, grads

    def _check_caches(self, cache: list[Cache]) -> None:
        if not isinstance(cache, list) or len(cache) != len(self.layers):
            raise TypeError(
                f"cache must be what forward returned, a list of {len(self.layers)}, got {shown(cache)}; "
                f"pass its second value"
            )


def _forwards(layers: Sequence[Layer]) -> list[str | None]:
    """The name of each layer's forward method; None for a layer that its predecessor computes."""
    forwards: list[str | None] = ["forward"] * len(layers)
    for i, (layer, after) in enumerate(itertools.pairwise(layers)):
        fuses = optional(layer, "fuses")
        if forwards[i] is not None and fuses is not None and fuses(after):
            forwards[i : i + 2] = ["forward_fused", None]
    return forwards


def _check_in_place(layers: Sequence[Layer]) -> None:
    for before, layer in itertools.pairwise(layers):
        if getattr(layer, "in_place", False) and needs_output(before):
            raise ValueError(
                f"layers must not have a {type(leaves(layer)[0]).__name__} with in_place=True after "
                f"{type(leaves(before)[-1]).__name__}, whose backward needs the values that it overwrites; use "
                f"in_place=False"
            )


def _named(parts: Sequence[Arrays]) -> Arrays:
    return {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}
