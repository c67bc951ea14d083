"""Replicas cut into parts, each a network on the same memory, for a backend that trains them at the same time."""

import copy
from typing import Any

from .backend import Backend
from .layers import BatchNorm, Sequential

_WORTH_A_THREAD = 2**23  # products of a forward below which starting threads costs more than they save


def cuts(backend: Backend, replicas: int | None, products: int) -> list[slice]:
    """The replicas of each task for `backend.run`; none where it does not pay.

    products: how many the forward of one replica takes.
    """
    if replicas is None or backend.threads == 1 or products * replicas < _WORTH_A_THREAD:
        return []
    parts = min(backend.threads, replicas)
    return [slice(replicas * i // parts, replicas * (i + 1) // parts) for i in range(parts)]


def split(network: Sequential, parts: list[slice]) -> list[Sequential]:
    """Networks of some of the replicas each; training one moves its part of the whole network's parameters and state.

    The first one counts the batches for the whole.
    """
    return [Sequential(*(_part(layer, part) for layer in network.layers)) for part in parts]


def _part(layer: Any, part: slice) -> Any:
    own = copy.copy(layer)
    own.params = {name: p[part, ...] for name, p in layer.params.items()}
    own.state = {name: a[part, ...] for name, a in layer.state.items() if name != "count"}
    if "count" in layer.state:
        count = layer.state["count"]
        own.state["count"] = count if part.start == 0 else count.copy()
    if isinstance(layer, BatchNorm):
        own.features = (part.stop - part.start, *layer.features[1:])
    return own
