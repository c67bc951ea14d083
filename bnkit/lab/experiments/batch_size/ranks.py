"""Data-parallel training by two ranks in one process: a thread each, which share batch norm's statistics."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bnkit.backend import Array
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.layer import Arrays
from bnkit.nn.mlp import MLP
from bnkit.nn.sequential import Sequential
from bnkit.norm.synchronous import Reduce
from bnkit.reference import quiet

RANKS = 2


class TwoRanks:
    """`gradients(x, t)` is that of the model over the batch, half of whose rows goes to either rank.

    Parameters and running statistics are the model's. Leave it as a context, which ends its thread.
    """

    def __init__(self, model: MLP) -> None:
        self.model = model
        self.meeting = threading.Barrier(RANKS)
        self.parts: list[Any] = [None] * RANKS
        self.networks = [
            Sequential(*(_shared(layer, self._reduce(rank), rank) for layer in model.network.layers))
            for rank in range(RANKS)
        ]
        self.thread = ThreadPoolExecutor(RANKS - 1)

    def __enter__(self) -> "TwoRanks":
        return self

    def __exit__(self, *error: object) -> None:
        self.meeting.abort()
        self.thread.shutdown()

    def gradients(self, x: Array, t: Array) -> Arrays:
        """By the names of the model's parameters; x (replicas, rows, inputs) and t (replicas, rows), rows even."""
        half = x.shape[-2] // RANKS
        halves = [
            (x[:, rank * half : (rank + 1) * half, :], t[:, rank * half : (rank + 1) * half]) for rank in range(RANKS)
        ]
        other = self.thread.submit(self._half, 1, *halves[1])
        first = self._half(0, *halves[0])
        return {name: (first[name] + grad) / RANKS for name, grad in other.result().items()}

    @quiet
    def _half(self, rank: int, x: Array, t: Array) -> Arrays:
        try:
            logits, caches = self.networks[rank].forward(x, train=True)
            _, dlogits = self.model.backend.softmax_cross_entropy(logits, t)
            return self.networks[rank].gradients(dlogits, caches)
        except BaseException:
            self.meeting.abort()  # the other rank would wait for ever
            raise

    def _reduce(self, rank: int) -> Reduce:
        def reduce(part: Array) -> Array:
            self.parts[rank] = part
            self.meeting.wait()
            total = self.parts[0] + self.parts[1]
            self.meeting.wait()  # before either writes its next part
            return total

        return reduce


def _shared(layer: Any, reduce: Reduce, rank: int) -> Any:
    """A batch norm on the same parameters whose statistics in training are those of all ranks."""
    if not isinstance(layer, BatchNorm):
        return layer
    shared = copy.copy(layer)
    shared.reduce = reduce
    if rank > 0:
        shared.state = {}  # rank 0 moves the running statistics
    return shared
