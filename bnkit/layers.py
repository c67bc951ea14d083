"""Layers without autograd: forward returns what backward needs, so a layer keeps nothing between the two.

A cache refers to arrays of the forward: that of Linear and BatchNorm to x, that of ReLU, Sigmoid and Tanh to y. These
must keep their values until the backward, which does not check it.

Data are (rows, features), or (replicas, rows, features) for replicas of a network trained in lockstep; the first layer
of replicas may share its (rows, features) input between them.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from . import checks
from .activations import Dropout as Dropout
from .activations import ReLU as ReLU
from .activations import Sigmoid as Sigmoid
from .activations import Tanh as Tanh
from .backend import Array, Backend, Key, dtype_name, get_backend, owner
from .batch_norm_layer import BatchNorm as BatchNorm
from .batch_norm_layer import call_text
from .init import Init, draw_weights
from .messages import shown

Arrays = dict[str, Array]
_KEEP = (BatchNorm, Dropout, ReLU, Sigmoid, Tanh)  # they return what their backward reads, or in inference their input


class Layer(Protocol):
    """What `Sequential` asks of a layer. `key = (seed, layer, step)` is what a random draw is a function of."""

    @property
    def params(self) -> Arrays: ...

    @property
    def state(self) -> Arrays: ...

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Any]: ...

    def backward(self, dy: Array, cache: Any) -> tuple[Array, Arrays]: ...


class Linear:
    """y = x @ weight + bias; weight is (inputs, outputs), with replicas (replicas, inputs, outputs).

    init and seed: one, or one a replica. The bias starts at 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        init: Init | Sequence[Init] = "he",
        replicas: int | None = None,
        seed: int | Sequence[int] = 0,
        layer: int = 0,
        backend: str | Backend | None = None,
        dtype: str = "float32",
    ) -> None:
        checks.check_int("inputs", inputs)
        checks.check_int("outputs", outputs)
        checks.check_bool("bias", bias)
        checks.check_int("layer", layer, least=0)
        dtype = checks.dtype_argument(dtype, ("float32", "float64"))
        inits, seeds = per_replica("init", init, replicas), per_replica("seed", seed, replicas)
        for s in seeds:
            checks.check_int("seed", s, least=0, below=2**64)
        backend = get_backend(backend)
        weight = draw_weights(inputs, outputs, inits=inits, seeds=seeds, layer=layer, dtype=dtype)
        self.params: Arrays = {"weight": backend.asarray(weight[0] if replicas is None else weight)}
        if bias:
            lead = () if replicas is None else (replicas,)
            self.params["bias"] = backend.asarray(np.zeros((*lead, outputs), dtype))
        self.state: Arrays = {}

    def __repr__(self) -> str:
        weight = self.params["weight"]
        options = {
            "bias": "bias" in self.params,
            "replicas": weight.shape[0] if weight.ndim > 2 else None,
            "dtype": dtype_name(weight),
        }
        return call_text(self, Linear.__init__, weight.shape[-2:], options)

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        weight = self.params["weight"]
        backend = checks.common_backend(x=x, weight=weight)
        checks.check_data("x", x)
        lead = tuple(weight.shape[:-2]) if x.ndim > 2 else ()
        if x.ndim < 2 or tuple(x.shape) != (*lead, x.shape[-2], weight.shape[-2]):
            width = weight.shape[-2]
            also = f" or ({weight.shape[0]}, rows, {width})" if weight.ndim > 2 else ""
            raise ValueError(f"x must be (rows, {width}){also}, got {tuple(x.shape)}")
        y = backend.matmul(x, weight)
        if "bias" in self.params:
            y += self.params["bias"][..., None, :]
        return y, x

    def backward(self, dy: Array, cache: Array) -> tuple[Array, Arrays]:
        xp, weight = self._check_backward(dy, cache).xp, self.params["weight"]
        dx = dy @ xp.matrix_transpose(weight)
        if dx.ndim > cache.ndim:  # the replicas shared their input
            dx = xp.sum(dx, axis=0)
        return dx, self._gradients(dy, cache)

    def gradients(self, dy: Array, cache: Array) -> Arrays:
        """The gradients of the parameters alone, for a first layer whose input needs none."""
        self._check_backward(dy, cache)
        return self._gradients(dy, cache)

    def _check_backward(self, dy: Array, cache: Array) -> Backend:
        backend, weight = checks.check_cache(dy, cache, axes=2), self.params["weight"]
        checks.check_gradient(dy, (*weight.shape[:-2], cache.shape[-2], weight.shape[-1]))
        return backend

    def _gradients(self, dy: Array, cache: Array) -> Arrays:
        backend = owner(dy)
        grads = {"weight": backend.matmul(backend.xp.matrix_transpose(cache), dy)}
        if "bias" in self.params:
            grads["bias"] = backend.xp.sum(dy, axis=-2)
        return grads


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


def per_replica(name: str, value: Any, replicas: int | None) -> list[Any]:
    """`value` once for each replica; of a sequence or a 1-D array, its entries, of which there are as many."""
    if replicas is not None:
        checks.check_int("replicas", replicas)
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * (1 if replicas is None else replicas)
    values = [v.item() if hasattr(v, "item") else v for v in value]
    if replicas is None:
        raise ValueError(f"{name} must be one value without replicas, got {len(values)}; pass replicas={len(values)}")
    if len(values) != replicas:
        raise ValueError(f"{name} must be one value, or one for each of {replicas} replicas, got {len(values)}")
    return values


def _named(parts: Sequence[Arrays]) -> Arrays:
    return {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}
