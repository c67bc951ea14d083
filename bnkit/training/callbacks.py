"""Callbacks of `fit`, which it calls after each epoch: their type, and `EarlyStopping`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnkit.backend import checks
from bnkit.backend.layout import is_int
from bnkit.backend.messages import shown
from bnkit.nn.archive import HostArrays
from bnkit.nn.mlp import MLP

Record = dict[str, Any]  # as JSON: numbers, or lists with one number for each replica
Callback = Callable[[Record, MLP], object]  # True ends the training


class EarlyStopping:
    """A callback that ends the training if `monitor` has not improved for `patience` epochs.

    monitor: the name of a metric in the records: "loss", "train_accuracy", "test_accuracy" or "test_loss". A loss
        improves when it falls, an accuracy when it rises, by more than `min_delta` beyond the best value so far. NaN
        never improves. Each replica has its best value; the training ends if no replica improves.
    restore_best: when `fit` returns, each network has the parameters and running statistics of its best epoch. A
        network without a best epoch keeps the last ones. The optimizer keeps its state of the last epoch.

    `best` is the best value so far and `best_epoch` its epoch, or 0; both are scalars, or arrays of shape (replicas,).
    Epoch 1 resets the count, so one object can serve one training after another. A run that resumes from a checkpoint
    resumes the count too, and reads the best network from the file.

    Raises TypeError or ValueError for a wrong argument; `fit` raises ValueError for a metric that it does not record.

        >>> model, data = bnkit.MLP((64, 20, 10), seed=0), bnkit.data.load("synthetic")
        >>> stopping = bnkit.EarlyStopping("test_loss", patience=2, restore_best=True)
        >>> records = bnkit.fit(
        ...     model, data, optimizer=bnkit.optim.Adam(), epochs=8, batch_size=100, callbacks=[stopping]
        ... )
        >>> bool(stopping.best == min(record["test_loss"] for record in records))
        True
    """

    def __init__(
        self, monitor: str = "test_accuracy", *, patience: int = 5, min_delta: float = 0.0, restore_best: bool = False
    ) -> None:
        if not isinstance(monitor, str):
            remedy = f"write EarlyStopping(patience={monitor})" if is_int(monitor) else "write 'test_accuracy'"
            raise TypeError(f"monitor must be the name of a number in the records, got {shown(monitor)}; {remedy}")
        checks.check_int("patience", patience)
        checks.check_real("min_delta", min_delta, least=0.0)
        checks.check_bool("restore_best", restore_best)
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.restore_best = bool(restore_best)
        self._sign = -1.0 if "loss" in monitor else 1.0
        self._start()

    def __repr__(self) -> str:
        options = f"patience={self.patience}, min_delta={self.min_delta:g}, restore_best={self.restore_best}"
        return f"EarlyStopping({self.monitor!r}, {options})"

    def _start(self) -> None:
        """Reset the count and forget the best network."""
        self.best: float | np.ndarray = -math.inf * self._sign
        self.best_epoch: int | np.ndarray = 0
        self.waited = 0
        self.best_arrays: HostArrays = {}  # by the names of `MLP.arrays`

    def __call__(self, record: Record, model: MLP) -> bool:
        improved = self.count(record)
        if self.restore_best and improved.any():
            arrays = model.arrays()
            if self.best_arrays and model.replicas is not None:
                _put(self.best_arrays, arrays, improved)
            else:
                self.best_arrays = arrays
        return self.waited >= self.patience

    def count(self, record: Record) -> np.ndarray:
        """Count the record, and return for each replica whether its value is the best so far."""
        if record["epoch"] == 1:
            self._start()
        self.check_monitor(tuple(record))
        value = np.asarray(record[self.monitor], np.float64)
        improved: np.ndarray = np.asarray(self._sign * value > self._sign * self.best + self.min_delta)
        self.best = np.where(improved, value, self.best)[()]
        self.best_epoch = np.where(improved, record["epoch"], self.best_epoch)[()]
        self.waited = 0 if improved.any() else self.waited + 1
        return improved

    def check_monitor(self, names: Sequence[str]) -> None:
        """ValueError unless `monitor` is one of `names`."""
        if self.monitor not in names:
            raise ValueError(f"monitor must be one of {', '.join(names)}, got {self.monitor!r}; choose one of these")

    def resume(
        self, records: Sequence[Record], last: HostArrays, best: HostArrays, best_epoch: int | list[int]
    ) -> bool:
        """Replay `records`, and return whether they end the training.

        last: the network after the last record, by the names of `MLP.arrays`. best, best_epoch: the best network of the
        checkpoint, and its epoch. ValueError if the checkpoint lacks the network of the epoch that is best here.
        """
        for record in records:
            self.count(record)
        if self.restore_best and np.any(self.best_epoch):
            if best and np.array_equal(best_epoch, self.best_epoch):
                self.best_arrays = best
            elif np.all(self.best_epoch == records[-1]["epoch"]):
                self.best_arrays = {name: array.copy() for name, array in last.items()}
            else:
                raise ValueError(
                    f"checkpoint must hold the network of epoch {np.max(self.best_epoch)}, the best by {self.monitor}, "
                    f"for restore_best=True, but was written without it; choose another file, or restore_best=False"
                )
        return self.waited >= self.patience

    def restore(self, model: MLP) -> None:
        """Write the best epoch's arrays into `model`, for each network that has a best epoch."""
        if not self.best_arrays:
            return
        arrays = self.best_arrays
        if model.replicas is not None:
            arrays = model.arrays()
            _put(arrays, self.best_arrays, np.asarray(self.best_epoch) > 0)
        model.set_arrays(arrays, source="best_arrays")


def _put(to: HostArrays, arrays: HostArrays, replicas: np.ndarray) -> None:
    """Copy these replicas of `arrays` into `to`. The count of batches, which all replicas share, stays."""
    for name, array in to.items():
        if array.ndim > 0:
            array[replicas] = arrays[name][replicas]
