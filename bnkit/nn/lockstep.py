"""Replicas cut into parts, each a network on the same memory, for a backend that trains them at the same time."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from bnkit.backend import Backend
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.sequential import Sequential

_WORTH_A_THREAD = 2**24  # multiplications of all replicas, forward, below which threads cost more than they save


def multiplications(sizes: Sequence[int], rows: int) -> int:
    """How many multiplications a forward of so many rows takes in a network of these sizes."""
    return rows * sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))


def cuts(backend: Backend, replicas: int, each: int) -> list[slice]:
    """The replicas of each task for `backend.run`; all in one where more do not pay.

    each: how many multiplications a task takes for a replica.
    """
    parts = min(backend.threads, replicas) if each * replicas >= _WORTH_A_THREAD else 1
    return [slice(replicas * i // parts, replicas * (i + 1) // parts) for i in range(parts)]


def part(network: Sequential, replicas: slice) -> Sequential:
    """A network of some of the replicas; training it moves their part of the whole one's parameters and state.

    The first part counts the batches for the whole.
    """
    return Sequential(*(_part(layer, replicas) for layer in network.layers))


def _part(layer: Any, replicas: slice) -> Any:
    own = copy.copy(layer)
    own.params = {name: p[replicas, ...] for name, p in layer.params.items()}
    if getattr(layer, "frozen", None):
        own.frozen = {name: p[replicas, ...] for name, p in layer.frozen.items()}
    own.state = {name: a[replicas, ...] for name, a in layer.state.items() if name != "count"}
    if "count" in layer.state:
        count = layer.state["count"]
        own.state["count"] = count if replicas.start == 0 else count.copy()
    if isinstance(layer, BatchNorm):
        own.features = (replicas.stop - replicas.start, *layer.features[1:])
    return own
