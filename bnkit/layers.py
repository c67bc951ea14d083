"""Layers without autograd: forward returns what backward needs, so a layer keeps nothing between the two.

Data are (rows, features), or (replicas, rows, features) for replicas of a network trained in lockstep; the first layer
of replicas may share its (rows, features) input between them.
"""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from . import checks
from .activations import Dropout as Dropout
from .activations import ReLU as ReLU
from .activations import Sigmoid as Sigmoid
from .activations import Tanh as Tanh
from .backend import Array, Backend, Key, backend_of, dtype_name, get_backend
from .batch_norm import batch_norm, batch_norm_backward
from .buffers import Buffers
from .dispatch import BatchNormCache
from .init import Init, draw_weights
from .layout import is_int

Arrays = dict[str, Array]


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

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Array]:
        weight = self.params["weight"]
        checks.common_backend(x=x, weight=weight)
        checks.check_data("x", x)
        lead = tuple(weight.shape[:-2]) if x.ndim > 2 else ()
        if x.ndim < 2 or tuple(x.shape) != (*lead, x.shape[-2], weight.shape[-2]):
            width = weight.shape[-2]
            also = f" or ({weight.shape[0]}, rows, {width})" if weight.ndim > 2 else ""
            raise ValueError(f"x must be (rows, {width}){also}, got {tuple(x.shape)}")
        y = x @ weight
        if "bias" in self.params:
            y += self.params["bias"][..., None, :]
        return y, x

    def backward(self, dy: Array, cache: Array) -> tuple[Array, Arrays]:
        xp, weight = checks.common_backend(dy=dy, x=cache).xp, self.params["weight"]
        expected = (*weight.shape[:-2], cache.shape[-2], weight.shape[-1])
        if tuple(dy.shape) != expected:
            raise ValueError(f"dy must have the shape of y, {expected}, got {tuple(dy.shape)}")
        dx = dy @ xp.matrix_transpose(weight)
        if dx.ndim > cache.ndim:  # the replicas shared their input
            dx = xp.sum(dx, axis=0)
        return dx, self.gradients(dy, cache)

    def gradients(self, dy: Array, cache: Array) -> Arrays:
        """The gradients of the parameters alone, for a first layer whose input needs none."""
        xp = backend_of(dy).xp
        grads = {"weight": xp.matrix_transpose(cache) @ dy}
        if "bias" in self.params:
            grads["bias"] = xp.sum(dy, axis=-2)
        return grads


class BatchNorm:
    """Batch normalization with its parameters and running statistics; see `bnkit.batch_norm` for the meaning.

    features: the size of `axis` of x, or a tuple of sizes. decay: the weight of the old running statistics, or None
    for their cumulative average, for which a batch counts even where its mask hides a channel. affine=False leaves
    gamma and beta out; track=False leaves the running statistics out, and inference uses the batch's too. dtype: that
    of x; parameters and statistics are float32, or float64 for it.
    reuse: the layer keeps the memory of y and dx, where these are NumPy's and of 4 MiB or more, and writes later ones
    there once nothing refers to the array any more: no name, view, memoryview or other library's tensor. A bare address
    does not count. It holds as much as was in use at one time. Ghost batches always get new arrays.
    state["count"] is the number of batches seen, an int64 NumPy array of shape () on every backend.
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        *,
        axis: int | tuple[int, ...] = 1,
        decay: float | None = 0.9,
        eps: float = 1e-5,
        correction: int = 1,
        affine: bool = True,
        track: bool = True,
        activation: str | None = None,
        ghost: int | None = None,
        reuse: bool = False,
        backend: str | Backend | None = None,
        dtype: str = "float32",
    ) -> None:
        shape = tuple(features) if isinstance(features, (tuple, list)) else (features,)
        for n in shape:
            checks.check_int("features", n, least=0)
        checks.check_options(
            train=True,
            decay=0.0 if decay is None else decay,
            eps=eps,
            correction=correction,
            activation=activation,
            ghost=ghost,
            reduce=None,
        )
        checks.check_bool("affine", affine)
        checks.check_bool("track", track)
        checks.check_bool("reuse", reuse)
        for a in axis if isinstance(axis, (tuple, list)) else (axis,):
            if not is_int(a):
                raise TypeError(f"axis must be an int or a tuple of ints, got {axis!r}")
        if len(shape) != (len(axis) if isinstance(axis, (tuple, list)) else 1):
            raise ValueError(f"features must have one size for each of axis {axis!r}, got {features!r}")
        dtype = checks.dtype_argument(dtype, checks.FLOATS)
        self.features, self.axis = shape, axis
        self.decay, self.eps, self.correction = decay, eps, correction
        self.activation, self.ghost, self.dtype = activation, ghost, dtype
        self._buffers = Buffers() if reuse and ghost is None else None  # ghost batches join their results anyway
        backend = get_backend(backend)
        kind = checks.parameter_dtype(dtype)
        self.params: Arrays = {}
        self.state: Arrays = {}
        if affine:
            self.params = {
                "gamma": backend.asarray(np.ones(shape, kind)),
                "beta": backend.asarray(np.zeros(shape, kind)),
            }
        if track:
            self.state = {
                "running_mean": backend.asarray(np.zeros(shape, kind)),
                "running_var": backend.asarray(np.ones(shape, kind)),
                "count": np.zeros((), np.int64),
            }

    def forward(
        self,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        residual: Array | None = None,
        out: Array | None = None,
        key: Key | None = None,
    ) -> tuple[Array, BatchNormCache]:
        """y like x, and the cache for `backward`; in training the state moves."""
        checks.check_bool("train", train)
        if not self._fits(x):
            checks.one_backend(("x",), (x,))
            checks.check_input(x, self.axis, self.features, self.dtype)
        count = self.state.get("count")
        decay = self.decay
        if decay is None:
            decay = 0.0 if count is None else float(count / (count + 1))
        if out is None and self._buffers is not None:
            out = self._buffers.like(x)
        y, cache = batch_norm(
            x,
            self.params.get("gamma"),
            self.params.get("beta"),
            self.state.get("running_mean"),
            self.state.get("running_var"),
            train=train if self.state else True,
            axis=self.axis,
            decay=decay,
            eps=self.eps,
            correction=self.correction,
            mask=mask,
            residual=residual,
            activation=self.activation,
            ghost=self.ghost,
            out=out,
        )
        if train and count is not None and 0 not in x.shape:
            count[...] = count.item() + 1  # `+= 1` takes ten times as long
        return y, cache

    def _fits(self, x: Array) -> bool:
        """Whether one look tells that x is as the layer takes it; False says nothing."""
        axis = self.axis
        return (
            type(x) is np.ndarray
            and type(axis) is int
            and -x.ndim <= axis < x.ndim
            and x.shape[axis] == self.features[0]
            and dtype_name(x) == self.dtype
        )

    def backward(self, dy: Array, cache: BatchNormCache) -> Any:
        """(dx, {"gamma": …, "beta": …}), and after a forward with a residual (dx, grads, dresidual)."""
        buffers = self._buffers if isinstance(cache, BatchNormCache) else None
        out = None if buffers is None else buffers.like(cache.x)
        dx, dgamma, dbeta, dresidual = batch_norm_backward(dy, cache, out=out)
        grads = {} if dgamma is None else {"gamma": dgamma, "beta": dbeta}
        return (dx, grads) if dresidual is None else (dx, grads, dresidual)


class Sequential:
    """Layers one after the other; parameters, state and gradients are named "0.weight", "1.gamma", …

    `params` and `state` are new dictionaries of the layers' own arrays: write into the arrays to change them.
    A ReLU that follows a BatchNorm is done by the same op, in one pass.
    """

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("layers must be at least one, got none")
        for layer in layers:
            if not (hasattr(layer, "forward") and hasattr(layer, "backward")):
                raise TypeError(f"layers must have forward and backward, got {layer!r}; pass them one by one")
        self.layers = layers

    @property
    def params(self) -> Arrays:
        return _named([layer.params for layer in self.layers])

    @property
    def state(self) -> Arrays:
        return _named([layer.state for layer in self.layers])

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, list[Any]]:
        """y, and the caches of the layers.

        With key (seed, n, step) the first layer draws by that key, the next by (seed, n + 1, step), and so on; a
        Sequential among them takes as many numbers as it holds layers.
        """
        checks.check_bool("train", train)
        caches: list[Any] = []
        for i, layer in enumerate(self.layers):
            cache = None
            if not self._is_fused(i):
                x, cache = (_with_relu(layer) if self._is_fused(i + 1) else layer).forward(x, train=train, key=key)
            caches.append(cache)
            key = None if key is None else (key[0], key[1] + _leaves(layer), key[2])
        return x, caches

    def backward(self, dy: Array, cache: list[Any]) -> tuple[Array, Arrays]:
        dx, grads = self._backward(dy, cache, 0)
        return dx, _named(grads)

    def gradients(self, dy: Array, cache: list[Any]) -> Arrays:
        """The gradients of the parameters alone, which spares the product for dx of a first Linear."""
        first = self.layers[0]
        if not isinstance(first, Linear):
            return self.backward(dy, cache)[1]
        dy, grads = self._backward(dy, cache, 1)
        return _named([first.gradients(dy, cache[0]), *grads[1:]])

    def _backward(self, dy: Array, cache: list[Any], start: int) -> tuple[Array, list[Arrays]]:
        grads: list[Arrays] = [{} for _ in self.layers]
        for i in reversed(range(start, len(self.layers))):
            if not self._is_fused(i):
                dy, grads[i] = self.layers[i].backward(dy, cache[i])
        return dy, grads

    def _is_fused(self, i: int) -> bool:
        """Whether layer i is a ReLU that the batch norm before it does."""
        if not 0 < i < len(self.layers) or type(self.layers[i]) is not ReLU:
            return False
        before = self.layers[i - 1]
        return type(before) is BatchNorm and before.activation is None


def _with_relu(layer: Layer) -> Layer:
    """The batch norm, on its own parameters and state, followed by ReLU."""
    fused = copy.copy(layer)
    fused.activation = "relu"  # type: ignore[attr-defined]
    return fused


def _leaves(layer: Layer) -> int:
    return sum(map(_leaves, layer.layers)) if isinstance(layer, Sequential) else 1


def per_replica(name: str, value: Any, replicas: int | None) -> list[Any]:
    """`value` once for each replica; a sequence or 1-D array of as many is taken apart."""
    if replicas is not None:
        checks.check_int("replicas", replicas)
    if isinstance(value, str) or np.ndim(value) == 0:
        return [value.item() if hasattr(value, "item") else value] * (1 if replicas is None else replicas)
    values = [v.item() if hasattr(v, "item") else v for v in value]
    if replicas is None:
        raise ValueError(f"{name} must be one value without replicas, got {len(values)}; pass replicas={len(values)}")
    if len(values) != replicas:
        raise ValueError(f"{name} must be one value, or one for each of {replicas} replicas, got {len(values)}")
    return values


def _named(parts: Sequence[Arrays]) -> Arrays:
    return {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}
