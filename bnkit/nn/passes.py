"""Passes over a dataset in batches, for `update_statistics`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from bnkit.backend import Array, checks
from bnkit.backend.layout import make_layout
from bnkit.backend.messages import shown

Batches = Iterable[Any] | Callable[[], Iterable[Any]]


class Passes:
    """Each iteration is one pass over the x of `batches`, checked and prepared for the model.

    batches: see `update_statistics`. prepare: a function that moves x to the model's backend and dtype. axis: the axis
    of the first BatchNorm, which decides the batch axis of an array. batch_size: the rows of each batch of an array.
    on_progress: called with the number of batches read in all passes.

    Raises TypeError for a batch that is no array, ValueError for no data or for other data in a later pass.
    """

    def __init__(
        self,
        batches: Batches,
        prepare: Callable[[Array], Array],
        axis: int | tuple[int, ...],
        batch_size: int,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._batches = _cut(batches, axis, batch_size)
        if not callable(self._batches):
            _check_iterable("batches", self._batches)
        self.single = isinstance(self._batches, Iterator)  # one pass only, such as a generator
        self._prepare, self._on_progress = prepare, on_progress
        self._read = 0
        self._sizes: set[int] = set()  # the number of elements in each pass so far

    def __iter__(self) -> Iterator[Array]:
        size = 0
        batches = self._batches
        if callable(batches):
            _check_iterable("batches()", batches := batches())
        for batch in batches:
            x = batch[0] if isinstance(batch, (tuple, list)) and len(batch) == 2 else batch
            if isinstance(x, (tuple, list)) or not hasattr(x, "shape"):
                raise TypeError(f"batches must hold arrays or pairs (x, t), got {shown(batch)}")
            checks.check_array("x of batches", x)
            if 0 not in x.shape:
                size += int(np.prod(x.shape, dtype=np.int64))
                yield self._prepare(x)
            self._read += 1
            if self._on_progress is not None:
                self._on_progress(self._read)
        self._sizes.add(size)
        if size == 0 or len(self._sizes) > 1:
            got = f"{size} elements after a pass over {min(self._sizes - {size})}" if len(self._sizes) > 1 else "none"
            raise ValueError(
                f"batches must hold data, the same in every pass, got {got}; a function that returns them must return "
                f"a new iterator at each call"
            )


def _check_iterable(name: str, batches: object) -> None:
    if not isinstance(batches, Iterable):
        raise TypeError(f"{name} must be an iterable of arrays or an array, got {shown(batches)}; pass [x]")


def _cut(batches: Any, axis: int | tuple[int, ...], batch_size: int) -> Batches:
    """The batches of a dataset or an array; any other object is returned unchanged."""
    if isinstance(batches, tuple):
        if len(batches) not in (2, 4) or not all(hasattr(a, "shape") for a in batches):
            raise TypeError(
                f"batches must be a list unless a Dataset or (x, t), got a tuple of {len(batches)}; pass a list"
            )
        batches = batches[0]
    if not hasattr(batches, "shape"):
        passed: Batches = batches
        return passed
    if len(batches.shape) < 2:
        raise ValueError(
            f"batches must be an array with a batch axis and channels, got shape {tuple(batches.shape)}; reshape it"
        )
    try:
        rows = make_layout(tuple(batches.shape), axis, None).batch
    except ValueError:  # an input that replicas share lacks their axis
        rows = 0
    return _Rows(batches, rows, batch_size)


class _Rows:
    """An array in batches of rows. A memory map is read batch by batch."""

    def __init__(self, whole: Array, axis: int, batch_size: int) -> None:
        self._whole, self._axis, self._batch_size = whole, axis, batch_size

    def __iter__(self) -> Iterator[Array]:
        rows = self._whole.shape[self._axis]
        for start in range(0, rows, self._batch_size):
            batch = slice(start, min(start + self._batch_size, rows))
            yield self._whole[(slice(None),) * self._axis + (batch, ...)]
