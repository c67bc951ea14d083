"""What `fit` calls after each epoch: the type of a callback, and `EarlyStopping`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import checks
from .layout import is_int
from .mlp import MLP

Record = dict[str, Any]
Callback = Callable[[Record, MLP], Any]


class EarlyStopping:
    """A callback that ends the training once `monitor` has not improved for `patience` epochs.

    monitor: "loss", "train_accuracy", "test_accuracy" or "test_loss", as the records have them. A name with "loss"
    improves downwards, the others upwards. An improvement exceeds the best value so far by more than `min_delta`; NaN
    never improves. With replicas each has its own best, and the training ends once none has improved.
    restore_best: at the end of `fit`, whatever ended it, the parameters and running statistics become those of the best
    epoch (with replicas, of each one's). The optimizer keeps the memory of the last epoch.

    `best` is the best value so far, negated for a loss, and `best_epoch` its epoch, 0 before there is one, with one
    entry for each replica. The count starts anew at epoch 1, so one object serves one training after the other.
    A run that resumes from a checkpoint counts on, and finds the best model there.

        >>> stopping = bnkit.EarlyStopping("test_loss", patience=3, restore_best=True)
        >>> bnkit.fit(model, data, optimizer=bnkit.optim.Adam(), epochs=100, batch_size=64, callbacks=[stopping])
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
            raise TypeError(f"monitor must be the name of a number in the records, got {monitor!r}; {remedy}")
        checks.check_int("patience", patience)
        checks.check_real("min_delta", min_delta, least=0.0)
        checks.check_bool("restore_best", restore_best)
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.restore_best = bool(restore_best)
        self.start()

    def __repr__(self) -> str:
        options = f"patience={self.patience}, min_delta={self.min_delta:g}, restore_best={self.restore_best}"
        return f"EarlyStopping({self.monitor!r}, {options})"

    def start(self) -> None:
        """Forget what earlier trainings were like; `fit` calls it."""
        self.best: Any = -math.inf
        self.best_epoch: Any = 0
        self.waited = 0
        self.best_arrays: dict[str, np.ndarray] = {}  # copies on the host, by the names of `MLP.arrays`

    def __call__(self, record: Record, model: MLP) -> bool:
        improved = self.count(record)
        if self.restore_best and improved.any():
            self._keep(improved, model)
        return self.waited >= self.patience

    def count(self, record: Record) -> np.ndarray:
        """Whether the record improves on the best, for each replica; without keeping the model."""
        if record["epoch"] == 1:
            self.start()
        self.check_monitor(tuple(record))
        value = np.asarray(record[self.monitor], np.float64) * (-1 if "loss" in self.monitor else 1)
        improved: np.ndarray = np.asarray(value > self.best + self.min_delta)
        self.best = np.where(improved, value, self.best)[()]
        self.best_epoch = np.where(improved, record["epoch"], self.best_epoch)[()]
        self.waited = 0 if improved.any() else self.waited + 1
        return improved

    def check_monitor(self, names: Sequence[str]) -> None:
        """ValueError where `monitor` is none of the numbers that a record has."""
        if self.monitor not in names:
            raise ValueError(f"monitor must be one of {', '.join(names)}, got {self.monitor!r}")

    def _keep(self, improved: np.ndarray, model: MLP) -> None:
        arrays = model.arrays()
        if model.replicas is None or not self.best_arrays:
            self.best_arrays = arrays
            return
        for name, array in arrays.items():
            if array.ndim == 0:  # the count of batches, which the replicas share
                self.best_arrays[name] = array
            else:
                self.best_arrays[name][improved] = array[improved]

    def resume(
        self, records: Sequence[Record], last: dict[str, np.ndarray], kept: dict[str, np.ndarray], kept_epoch: Any
    ) -> bool:
        """Whether the training whose past `records` these are has ended; counts as if it had been called for each.

        last: the network after the last of the records, by the names of `MLP.arrays`. kept, kept_epoch: the best
        network that a checkpoint holds, and its epoch; ValueError where it is not the best one by this callback.
        """
        for record in records:
            self.count(record)
        if self.restore_best and np.any(self.best_epoch):
            if kept and np.array_equal(kept_epoch, self.best_epoch):
                self.best_arrays = kept
            elif np.all(self.best_epoch == records[-1]["epoch"]):
                self.best_arrays = dict(last)
            else:
                raise ValueError(
                    f"checkpoint must hold the network of epoch {np.max(self.best_epoch)}, the best by {self.monitor}, "
                    f"for restore_best=True, but was written without; choose another file, or restore_best=False"
                )
        return self.waited >= self.patience

    def restore(self, model: MLP) -> None:
        """Make the model the best one, if `restore_best` and if any epoch was better than none."""
        if self.best_arrays:
            model.set_arrays(self.best_arrays, source="best_arrays")
