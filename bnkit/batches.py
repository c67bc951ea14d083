"""Where the batches of `fit` come from: rows of arrays in an order drawn for each epoch, or an iterable of batches."""

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .backend import Array, Backend
from .init import generator
from .mlp import MLP, is_mapped

_SAMPLE = 1024  # rows of a memory map that stand for all of it in its checksum

Batch = tuple[Array, Array]


class Rows:
    """Rows of x and t, as `MLP.prepare` gives them, in an order drawn from (seed, epoch)."""

    def __init__(self, x: Array, t: Array, batch_size: int, seed: int) -> None:
        self.x, self.t, self.batch_size, self.seed = x, t, batch_size, seed
        self.count = math.ceil(x.shape[0] / batch_size)

    def order(self, epoch: int) -> np.ndarray:
        return generator("order", self.seed, epoch).permutation(self.x.shape[0])

    def epoch(self, number: int, model: MLP) -> Iterator[Batch]:
        order = self.order(number)
        for i in range(self.count):
            rows = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield taken(model, self.x, rows), taken(model, self.t, rows)


class Stream:
    """The batches that an iterable gives, an epoch each time that it is gone through."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def once(self) -> bool:
        """Whether it can be gone through a single time, as a generator."""
        return iter(self.batches) is self.batches

    def epoch(self, number: int, model: MLP) -> Iterator[Batch]:
        found = 0
        for batch in self.batches:
            found += 1
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(f"data must give batches (x, t), got {_said(batch)} as batch {found} of an epoch")
            x, t = (a if hasattr(a, "shape") and hasattr(a, "flags") else model.backend.asarray(a) for a in batch)
            yield x, t
        if found == 0:
            raise ValueError(
                f"data must give a batch in every epoch, got none in epoch {number + 1}; pass what can be gone "
                f"through anew, as a list or an object with __iter__"
            )


def taken(model: MLP, a: Array, rows: np.ndarray) -> Array:
    """Those rows of an array that lies on the backend or in a file."""
    if is_mapped(a):
        return model.backend.asarray(np.asarray(np.take(a, rows, axis=0)))
    return model.backend.xp.take(a, model.backend.asarray(rows), axis=0)


def identity(backend: Backend, a: Array) -> list[int]:
    """Shape and checksum, by which what resumes knows its data; of a memory map some rows stand for all."""
    shape = a.shape
    if is_mapped(a) and shape[0] > _SAMPLE:
        a = a[np.linspace(0, shape[0] - 1, _SAMPLE).astype(np.int64)]
    return [*shape, zlib.crc32(np.ascontiguousarray(backend.to_numpy(a)).data)]


def _said(batch: Any) -> str:
    return f"{len(batch)} values" if isinstance(batch, (tuple, list)) else type(batch).__name__
