"""What `fit` calls after each epoch: the type of a callback, and `EarlyStopping`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnkit.backend import checks
from bnkit.backend.layout import is_int
from bnkit.backend.messages import shown
from bnkit.nn.mlp import MLP

Record = dict[str, Any]
Callback = Callable[[Record, MLP], Any]
Arrays = dict[str, np.ndarray]


class EarlyStopping:
    """A callback that ends the training once `monitor` has not improved for `patience` epochs.

    monitor: "loss", "train_accuracy", "test_accuracy" or "test_loss", as the records have them. A name with "loss"
    improves downwards, the others upwards. An improvement exceeds the best value so far by more than `min_delta`; NaN
    never improves. With replicas each has its own best, and the training ends once none has improved.
    restore_best: when `fit` returns, the parameters and running statistics are those of the best epoch, and with
    replicas of the best epoch of each. A network that never had a best stays as it is. The optimizer keeps the memory
    of the last epoch.

    `best` is the best value so far and `best_epoch` its epoch, 0 before there is one; both are scalars, or arrays of
    shape (replicas,). The count starts anew at epoch 1, so one object serves one training after the other. A run that
    resumes from a checkpoint counts on, and takes the best network from there.

        >>> model, data = bnkit.MLP((64, 20, 10), seed=0), bnkit.data.load("synthetic")
        >>> stopping = bnkit.EarlyStopping("test_loss", patience=2, restore_best=True)
        >>> records = bnkit.fit(
        ...     model, data, optimizer=bnkit.optim.Adam(), epochs=8, batch_size=100, callbacks=[stopping]
        ... )
        >>> bool(stopping.best == min(record["test_loss"] for record in records))
        True
    """

    def __init__(
        self,
        monitor: str = "test_accuracy",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = False,
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
        self.best: Any = -math.inf * self._sign
        self.best_epoch: Any = 0
        self.waited = 0
        self.best_arrays: Arrays = {}  # copies on the host, by the names of `MLP.arrays`

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
        """Count the record; return for each replica whether it is the best so far."""
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
        """ValueError where `monitor` is none of the numbers that a record has."""
        if self.monitor not in names:
            raise ValueError(f"monitor must be one of {', '.join(names)}, got {self.monitor!r}")

    def resume(self, records: Sequence[Record], last: Arrays, kept: Arrays, kept_epoch: Any) -> bool:
        """Replay `records`; return whether they end the training.

        last: the network after the last record, by the names of `MLP.arrays`. kept, kept_epoch: the best network of a
        checkpoint, and its epoch. ValueError where that is not the best one by this callback.
        """
        for record in records:
            self.count(record)
        if self.restore_best and np.any(self.best_epoch):
            if kept and np.array_equal(kept_epoch, self.best_epoch):
                self.best_arrays = kept
            elif np.all(self.best_epoch == records[-1]["epoch"]):
                self.best_arrays = {name: array.copy() for name, array in last.items()}
            else:
                raise ValueError(
                    f"checkpoint must hold the network of epoch {np.max(self.best_epoch)}, the best by {self.monitor}, "
                    f"for restore_best=True, but was written without; choose another file, or restore_best=False"
                )
        return self.waited >= self.patience

    def restore(self, model: MLP) -> None:
        """Write the best network into `model`, if there is one; with replicas, into those that have one."""
        if not self.best_arrays:
            return
        arrays = self.best_arrays
        if model.replicas is not None:
            arrays = model.arrays()
            _put(arrays, self.best_arrays, np.asarray(self.best_epoch) > 0)
        model.set_arrays(arrays, source="best_arrays")


def _put(to: Arrays, arrays: Arrays, replicas: np.ndarray) -> None:
    """Write some replicas of `arrays` into `to`; the count of batches, which all share, stays."""
    for name, array in to.items():
        if array.ndim > 0:
            array[replicas] = arrays[name][replicas]
