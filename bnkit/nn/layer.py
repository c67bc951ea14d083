"""Layers without autograd: forward returns what backward needs, so a layer keeps nothing between the two.

A cache refers to arrays of the forward: that of Linear and BatchNorm to x, that of ReLU, Sigmoid and Tanh to y. These
must keep their values until the backward, which does not check it.

Data are (rows, features), or (replicas, rows, features) for replicas of a network trained in lockstep; the first layer
of replicas may share its (rows, features) input between them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from bnkit.backend import Array, Key, checks

Arrays = dict[str, Array]


class Layer(Protocol):
    """What `Sequential` asks of a layer. `key = (seed, layer, step)` is what a random draw is a function of."""

    @property
    def params(self) -> Arrays: ...

    @property
    def state(self) -> Arrays: ...

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Any]: ...

    def backward(self, dy: Array, cache: Any) -> tuple[Array, Arrays]: ...


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


def call_text(layer: Any, made: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
    """The call that makes `layer`, without the options that have their default in the function `made`."""
    changed = [f"{name}={value!r}" for name, value in options.items() if value != made.__kwdefaults__[name]]
    return f"{type(layer).__name__}({', '.join([*map(repr, arguments), *changed])})"
