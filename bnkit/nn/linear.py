"""The layer `Linear`."""

from collections.abc import Sequence

import numpy as np

from bnkit.backend import Array, Backend, Key, checks, dtype_name, get_backend, owner
from bnkit.nn.init import Init, draw_weights, per_replica
from bnkit.nn.layer import Arrays, call_text


class Linear:
    """y = x @ weight + bias, where weight is (inputs, outputs), or (replicas, inputs, outputs).

    x is (rows, inputs), which replicas may share, or (replicas, rows, inputs). init: "he", "xavier" or a standard
    deviation. init and seed may be one value for each replica. layer: the layer's number in the network, which decides
    the weights together with the seed. The bias starts at 0. dtype: "float32" or "float64".

        >>> x = np.ones((32, 64), np.float32)
        >>> y, cache = bnkit.Linear(64, 10, seed=1).forward(x, train=True)
        >>> y.shape
        (32, 10)
    """

    needs_output = False

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
        if dx.ndim > cache.ndim:  # the replicas shared x
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
