"""Small layers in float64, random arrays for them, and their gradients against central differences."""

import numpy as np

from bnkit import BatchNorm, Dropout, Linear, Sequential, Sigmoid, Tanh
from bnkit.testing.gradients import numerical_gradient

KEY = (3, 0, 7)
# Central differences with h = 1e-4: h²/6 of a third derivative of order 1, and 1e-16 |f| / h; values are of order 1.
GRADIENT = {"rtol": 0, "atol": 1e-7}
# A handful of float64 roundings, which each library may order in its own way.
ROUNDING = {"rtol": 1e-13, "atol": 1e-13}


def draw(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def on(backend, host: np.ndarray):
    return backend.asarray(host.copy())


def host_params(backend, layer) -> dict[str, np.ndarray]:
    return {name: backend.to_numpy(p).copy() for name, p in layer.params.items()}


def linear(backend, inputs=5, outputs=3, **options) -> Linear:
    """A Linear whose bias is not zero."""
    layer = Linear(inputs, outputs, init=0.7, backend=backend, dtype="float64", **options)
    if "bias" in layer.params:
        layer.params["bias"][...] = backend.asarray(draw(*layer.params["bias"].shape, seed=99))
    return layer


def network(backend, replicas=None) -> Sequential:
    """One of each layer, in float64."""
    features, axis = (4, 1) if replicas is None else ((replicas, 4), (0, 2))
    return Sequential(
        linear(backend, 5, 4, replicas=replicas),
        BatchNorm(features, axis=axis, backend=backend, dtype="float64"),
        Sigmoid(),
        Dropout(0.3),
        linear(backend, 4, 3, replicas=replicas, layer=1),
        Tanh(),
    )


def check_gradients(backend, layer, x: np.ndarray, *, key=None) -> None:
    """The backward of `layer` against central differences of the sum of its output, weighed by a random dy."""
    x = on(backend, x)
    y, cache = layer.forward(x, train=True, key=key)
    dy = on(backend, draw(*y.shape, seed=50))

    def f():
        return backend.xp.sum(layer.forward(x, train=True, key=key)[0] * dy)

    dx, grads = layer.backward(dy, cache)
    assert tuple(dx.shape) == tuple(x.shape)
    np.testing.assert_allclose(backend.to_numpy(dx), numerical_gradient(f, x), **GRADIENT)
    assert grads.keys() == layer.params.keys()
    for name, p in layer.params.items():
        np.testing.assert_allclose(backend.to_numpy(grads[name]), numerical_gradient(f, p), err_msg=name, **GRADIENT)
