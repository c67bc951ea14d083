"""The batches of `fit`: rows of arrays in a random order for each epoch, or the batches of an iterable."""

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, checks
from bnkit.nn.data_format import is_mapped
from bnkit.nn.init import generator
from bnkit.nn.mlp import MLP

_SAMPLE = 1024  # the rows of a memory map that its checksum covers

Batch = tuple[Array, Array]


class Rows:
    """Batches of x and t, as `MLP.prepare` returns them, in an order drawn from (seed, epoch)."""

    def __init__(self, x: Array, t: Array, batch_size: int, seed: int, *, drop_last: bool = False) -> None:
        self.x, self.t, self.batch_size, self.seed = x, t, batch_size, seed
        self.count = x.shape[0] // batch_size if drop_last else math.ceil(x.shape[0] / batch_size)

    def order(self, epoch: int) -> np.ndarray:
        return generator("order", self.seed, epoch).permutation(self.x.shape[0])

    def epoch(self, number: int, model: MLP) -> Iterator[Batch]:
        order = self.order(number)
        for i in range(self.count):
            rows = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield _take(model, self.x, rows), _take(model, self.t, rows)


class Stream:
    """The batches of an iterable. An epoch is one pass over it."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self._checked = False  # whether the first batch has been checked for NaN and infinity

    def once(self) -> bool:
        """Whether the iterable allows one pass only, as a generator does."""
        return iter(self.batches) is self.batches

    def epoch(self, number: int, model: MLP) -> Iterator[Batch]:
        count = 0
        for batch in self.batches:
            count += 1
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(f"data must yield batches (x, t), got {_described(batch)} as batch {count} of an epoch")
            x, t = (a if hasattr(a, "shape") and hasattr(a, "flags") else model.backend.asarray(a) for a in batch)
            if not self._checked:
                checks.check_finite("x of the first batch", x, model.dtype)
                self._checked = True
            yield x, t
        if count == 0:
            raise ValueError(
                f"data must yield a batch in every epoch, got none in epoch {number + 1}; pass a list, or an object "
                f"whose __iter__ returns a new iterator"
            )


def source(
    model: MLP, data: Any, batch_size: int | None, seed: int, *, drop_last: bool = False
) -> tuple[Rows | Stream, tuple[Array, ...]]:
    """The batches of `data`, and its test set (x, t) or (), after all checks."""
    if isinstance(data, list) and len(data) in (2, 4) and all(hasattr(a, "shape") for a in data):
        names = "(x, t)" if len(data) == 2 else "Dataset(x_train, t_train, x_test, t_test)"
        raise TypeError(f"data must be a tuple of arrays, got a list of {len(data)} arrays; pass {names}")
    arrays = isinstance(data, tuple) and all(hasattr(a, "shape") for a in data)
    if isinstance(data, tuple) and not arrays and batch_size is not None:
        types = ", ".join(type(a).__name__ for a in data)
        raise TypeError(f"data must hold arrays, got {types}; convert each by numpy.asarray")
    if not arrays:
        if not isinstance(data, Iterable) or isinstance(data, (str, bytes)) or hasattr(data, "shape"):
            raise TypeError(
                f"data must be a Dataset, (x, t) or an iterable of batches, got {type(data).__name__}; pass one"
            )
        if batch_size is not None:
            raise ValueError(f"batch_size must be None for an iterable of batches, got {batch_size}; leave it out")
        if drop_last:
            raise ValueError("drop_last must be False for an iterable of batches, got True; leave it out")
        return Stream(data), ()
    if len(data) not in (2, 4):
        raise TypeError(f"data must be a Dataset or (x, t), got {len(data)} arrays; pass data[:2]")
    if batch_size is None:
        raise TypeError("batch_size must be an int for data in arrays, got None; pass batch_size=100, for example")
    checks.check_int("batch_size", batch_size)
    if len(data[0].shape) != 2:
        raise ValueError(f"data must hold x as (rows, inputs), got {tuple(data[0].shape)}; reshape x")
    x, t = model.prepare(*data[:2])
    checks.check_finite("x", data[0], model.dtype)
    rows = x.shape[0]
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most the {rows} rows of the data, got {batch_size}")
    _check_last_batch(model, rows, batch_size, drop_last=drop_last)
    return Rows(x, t, batch_size, seed, drop_last=drop_last), data[2:]


def test_set(model: MLP, test: object) -> Batch:
    """x and t of a test set, as `MLP.prepare` returns them."""
    if not isinstance(test, tuple) or len(test) != 2:
        raise TypeError(f"test must be (x, t), got {type(test).__name__}; pass a tuple of two arrays")
    if not all(hasattr(a, "shape") for a in test):
        types = ", ".join(type(a).__name__ for a in test)
        raise TypeError(f"test must hold arrays, got {types}; convert each by numpy.asarray")
    prepared = model.prepare(*test)
    checks.check_finite("x of the test set", test[0], model.dtype)
    return prepared


def _take(model: MLP, a: Array, rows: np.ndarray) -> Array:
    """These rows of an array of the backend or of a memory map, on the backend."""
    if is_mapped(a):
        return model.backend.asarray(np.take(np.asarray(a), rows, axis=0))
    return model.backend.xp.take(a, model.backend.asarray(rows), axis=0)


def identity(backend: Backend, a: Array) -> list[int]:
    """Shape and checksum, by which a resumed run recognizes its data. A memory map is checked in 1,024 rows."""
    shape = a.shape
    if is_mapped(a) and shape[0] > _SAMPLE:
        a = a[np.linspace(0, shape[0] - 1, _SAMPLE).astype(np.int64)]
    return [*shape, zlib.crc32(np.ascontiguousarray(backend.to_numpy(a)).data)]


def _check_last_batch(model: MLP, rows: int, batch_size: int, *, drop_last: bool) -> None:
    """ValueError if a batch has one row and a running variance with correction 1: its divisor would be 0."""
    norms = [norm for norm in model.norms if norm.moves_statistics and norm.correction == 1]
    if not norms:
        return
    ghost = norms[0].ghost  # the norms of an MLP share their options

    def has_single_row(batch: int) -> bool:
        return 1 in (batch, ghost, batch % (ghost or batch))

    last = 0 if drop_last else rows % batch_size
    if not any(has_single_row(batch) for batch in {batch_size, last} - {0}):
        return
    got = f"{batch_size} for {rows} rows" + (f" and ghost={ghost}" if ghost else "")
    remedy = "choose another" if has_single_row(batch_size) else "pass drop_last=True, choose another"
    raise ValueError(
        f"batch_size must leave no batch of 1 row to batch norm with correction=1, got {got}; {remedy}, or correction=0"
    )


def _described(batch: object) -> str:
    return f"{len(batch)} values" if isinstance(batch, (tuple, list)) else type(batch).__name__
