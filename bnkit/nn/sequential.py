"""Layers one after the other."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from bnkit.backend import Array, Key, checks
from bnkit.backend.messages import shown
from bnkit.nn.activation import ReLU, Sigmoid, Tanh
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.dropout import Dropout
from bnkit.nn.layer import Arrays, Layer
from bnkit.nn.linear import Linear

_KEEP = (BatchNorm, Dropout, ReLU, Sigmoid, Tanh)  # they return what their backward reads, or in inference their input


class Sequential:
    """Layers one after the other; parameters, state and gradients are named "0.weight", "1.gamma", …

    `params` and `state` are new dictionaries of the layers' own arrays: write into the arrays to change them.
    A ReLU that follows a BatchNorm is done by the same op, in one pass, but after one that is in place, which must not
    follow a layer that keeps what it returns. The parameters of frozen batch norms stand in `frozen`.
    """

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("layers must be at least one, got none")
        for layer in layers:
            if isinstance(layer, type) or not (hasattr(layer, "forward") and hasattr(layer, "backward")):
                remedy = "make a layer of the class" if isinstance(layer, type) else "pass layers one by one"
                raise TypeError(f"layers must have forward and backward, got {shown(layer)}; {remedy}")
        self.layers = layers
        _check_in_place(_leaves(self))

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

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, list[Any]]:
        """y, and the caches of the layers, which may refer to x and y: both must keep their values until the backward.

        With key (seed, n, step) the first layer draws by that key, the next by (seed, n + 1, step), and so on; a
        Sequential among them takes as many numbers as it holds layers.
        """
        checks.check_bool("train", train)
        checks.check_key(key)
        caches: list[Any] = []
        for i, layer in enumerate(self.layers):
            cache = None
            if not self._is_fused(i):
                x, cache = (_with_relu(layer) if self._is_fused(i + 1) else layer).forward(x, train=train, key=key)
            caches.append(cache)
            key = None if key is None else (key[0], key[1] + len(_leaves(layer)), key[2])
        return x, caches

    def backward(self, dy: Array, cache: list[Any]) -> tuple[Array, Arrays]:
        self._check_caches(cache)
        dx, grads = self._backward(dy, cache, 0)
        return dx, _named(grads)

    def gradients(self, dy: Array, cache: list[Any]) -> Arrays:
        """The gradients of the parameters alone, which spares the product for dx of a first Linear."""
        first = self.layers[0]
        if not isinstance(first, Linear):
            return self.backward(dy, cache)[1]
        self._check_caches(cache)
        dy, grads = self._backward(dy, cache, 1)
        return _named([first.gradients(dy, cache[0]), *grads[1:]])

    def _backward(self, dy: Array, cache: list[Any], start: int) -> tuple[Array, list[Arrays]]:
        grads: list[Arrays] = [{} for _ in self.layers]
        for i in reversed(range(start, len(self.layers))):
            if not self._is_fused(i):
                dy, grads[i] = self.layers[i].backward(dy, cache[i])
        return dy, grads

    def _check_caches(self, cache: list[Any]) -> None:
        if not isinstance(cache, list) or len(cache) != len(self.layers):
            raise TypeError(
                f"cache must be what forward returned, a list of {len(self.layers)}, got {shown(cache)}; "
                f"pass its second value"
            )

    def _is_fused(self, i: int) -> bool:
        """Whether layer i is a ReLU that the batch norm before it does."""
        if not 0 < i < len(self.layers) or type(self.layers[i]) is not ReLU:
            return False
        before = self.layers[i - 1]
        return type(before) is BatchNorm and before.activation is None and not before.in_place


def _with_relu(layer: Layer) -> Layer:
    """The batch norm, on its own parameters and state, followed by ReLU."""
    fused = copy.copy(layer)
    fused.activation = "relu"  # type: ignore[attr-defined]
    return fused


def _leaves(layer: Layer) -> list[Layer]:
    return [leaf for own in layer.layers for leaf in _leaves(own)] if isinstance(layer, Sequential) else [layer]


def _check_in_place(leaves: Sequence[Layer]) -> None:
    """No batch norm writes over what the layer before it keeps, or hands through."""
    for before, layer in itertools.pairwise(leaves):
        if isinstance(layer, BatchNorm) and layer.in_place and isinstance(before, _KEEP):
            raise ValueError(
                f"layers must not have a BatchNorm with in_place=True after {type(before).__name__}, whose backward "
                f"needs what that writes over; use in_place=False"
            )


def _named(parts: Sequence[Arrays]) -> Arrays:
    return {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}
