"""The protocol `Layer`, and the functions that read its optional members.

Layers have no autograd. forward returns a cache for backward, so a layer keeps nothing between the two calls, and
several forwards may precede their backwards.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard, TypeVar

from bnkit.backend import Array, Key

Arrays = dict[str, Array]
Cache = Any  # what forward returns for backward; nothing else reads it
T = TypeVar("T")


class Layer(Protocol):
    """Any object with these four members is a layer: it needs no base class and no registration.

    params, state: the layer's arrays by name. An optimizer writes into those of `params`. Both may be empty.
    forward(x, *, train, key): y and a cache. x is (rows, features), or (replicas, rows, features) for replicas trained
        in lockstep. A random draw is a function of key = (seed, layer, step). A cache may refer to x and y, which the
        caller must not change before the backward.
    backward(dy, cache): dx, and the gradients by the names of `params`.

    Further members are optional. The first five describe what forward and backward compute, so a subclass that
    overrides forward or backward does not inherit them:

    - needs_output: whether backward reads y, or forward may return x itself. Default: True. A layer that overwrites
      its input can only follow a layer with False.
    - identity_in_inference: whether inference returns x. Default: False.
    - gradients(dy, cache): the gradients of the parameters alone. Default: backward(dy, cache)[1].
    - fuses(after): whether the layer can compute the layer `after` it too, by forward_fused(x, *, train, key). backward
      then differentiates both. Default: False.
    - leaves(): the layers that this one applies one after the other. Default: the layer itself.

    The others are inherited:

    - in_place: whether forward overwrites x. Default: False.
    - draws: how many layer numbers of the key it uses. Default: 1.
    - frozen: parameters that are not trained. Default: none.
    - part(replicas): the layer of a slice of the replicas, on the same memory. Default: a copy of the layer with views
      of params and state along the leading axis.

    >>> import bnkit, numpy as np
    >>> class Scale:
    ...     "y = scale * x, with a learned scale for each feature."
    ...
    ...     needs_output = False
    ...
    ...     def __init__(self, features):
    ...         self.params, self.state = {"scale": np.ones(features, np.float32)}, {}
    ...
    ...     def forward(self, x, *, train, key=None):
    ...         return x * self.params["scale"], x
    ...
    ...     def backward(self, dy, cache):
    ...         return dy * self.params["scale"], {"scale": (dy * cache).sum(axis=0)}
    >>> network = bnkit.Sequential(bnkit.Linear(4, 3, backend="numpy"), Scale(3))
    >>> y, caches = network.forward(np.ones((2, 4), np.float32), train=True)
    >>> dx, grads = network.backward(np.ones_like(y), caches)
    >>> sorted(grads)
    ['0.bias', '0.weight', '1.scale']
    """

    @property
    def params(self) -> Arrays: ...

    @property
    def state(self) -> Arrays: ...

    def forward(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, Cache]: ...

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Arrays]: ...


def optional(layer: Layer, name: str) -> Any:
    """The optional member `name`; None if there is none, or if a subclass overrides the forward that it describes."""
    for members in (getattr(layer, "__dict__", {}), *map(vars, type(layer).__mro__)):
        if name in members:
            return getattr(layer, name)
        if "forward" in members or "backward" in members:
            return None
    return None


def computes_as(layer: Layer, of: type[T]) -> TypeGuard[T]:
    """Whether `layer` is an `of` that overrides neither forward nor backward."""
    return isinstance(layer, of) and all(
        getattr(getattr(layer, name), "__func__", None) is getattr(of, name) for name in ("forward", "backward")
    )


def needs_output(layer: Layer) -> bool:
    return optional(layer, "needs_output") is not False


def leaves(layer: Layer) -> list[Layer]:
    """The layers that `layer` applies one after the other, with nested ones expanded."""
    inner = optional(layer, "leaves")
    return [layer] if inner is None else list(inner())


def replace(layer: T, **changes: object) -> T:
    """A shallow copy of `layer` with these attributes changed; it shares all other arrays.

    >>> norm = bnkit.BatchNorm(100)
    >>> other = replace(norm, decay=0.99)
    >>> norm.decay, other.decay, other.params["gamma"] is norm.params["gamma"]
    (0.9, 0.99, True)
    """
    if unknown := [name for name in changes if not hasattr(layer, name)]:
        raise AttributeError(f"{type(layer).__name__} has no attribute {', '.join(unknown)} to replace")
    other = copy.copy(layer)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def part(layer: Layer, replicas: slice) -> Layer:
    """The layer of a slice of the replicas, on the same memory; without arrays, the layer itself."""
    if hasattr(layer, "part"):
        result: Layer = layer.part(replicas)
        return result
    if not layer.params and not layer.state:
        return layer
    return replace(layer, params=views(layer.params, replicas), state=views(layer.state, replicas))


def views(arrays: Arrays, replicas: slice) -> Arrays:
    """Views of a slice of the replicas, which are the leading axis."""
    return {name: array[replicas, ...] for name, array in arrays.items()}


def call_text(
    layer: Layer, init: Callable[..., None], arguments: Sequence[object], options: Mapping[str, object]
) -> str:
    """The call that constructs `layer`, without the options that equal their default in `init`."""
    defaults = inspect.signature(init).parameters
    changed = [f"{name}={value!r}" for name, value in options.items() if value != defaults[name].default]
    return f"{type(layer).__name__}({', '.join([*map(repr, arguments), *changed])})"
