"""`fit`: training by epochs, with one record for each, callbacks, and a checkpoint from which a killed run resumes."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnkit.backend import Array, checks
from bnkit.backend.messages import shown
from bnkit.data import Dataset
from bnkit.data.files import check_target
from bnkit.nn.mlp import MLP
from bnkit.training import batches
from bnkit.training import checkpoint as checkpoints
from bnkit.training.batches import Rows, Stream
from bnkit.training.callbacks import Callback, EarlyStopping, Record
from bnkit.training.epoch import Run, train_epoch
from bnkit.training.optimizers import BY_NAME, Adam, Optimizer


class DivergenceWarning(RuntimeWarning):
    """A loss or a parameter became infinite or NaN in training."""


def fit(
    model: MLP,
    data: Dataset | tuple[np.ndarray, np.ndarray] | Iterable[Any],
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int | None = None,
    drop_last: bool = False,
    seed: int = 0,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """Train `model` in place, and return one record for each epoch.

    data: a Dataset, or the tuple (x, t) with x (rows, inputs) and t (rows,) integer labels or (rows, classes) weights.
        An epoch is one pass over the training rows in an order drawn from (seed, epoch), in batches of `batch_size`.
        The last batch may be smaller; drop_last=True leaves it out, which omits other rows in each epoch.
        A memory-mapped x (np.load(…, mmap_mode="r")) is read batch by batch, and may be larger than memory. All other
        arrays move to the backend at the start.
        Or an iterable of batches (x, t), without `batch_size`, `drop_last` and `seed`. An epoch is one pass over the
        batches in their order. With several epochs the iterable must be restartable.
    test: the test set (x, t), if `data` is no Dataset.
    optimizer: an object of `bnkit.optim`; each model needs a new one.
    callbacks: called with (record, model) after each epoch. If one returns True, the training ends.
    checkpoint: a file that `fit` writes after each epoch and its callbacks, and resumes from if it exists. A killed run
        that is started again ends like an uninterrupted one, if an iterable yields the same batches in every epoch.
        After every network has diverged, the file is not written again.

    A record holds epoch (from 1), step (updates so far), loss (in training, the mean over the rows of the epoch),
    train_accuracy (unless `data` is an iterable), test_accuracy and test_loss (with a test set), and diverged.
    Accuracies and the test loss are measured in inference, as by `model.accuracy` and `model.loss`. With replicas, all
    but epoch and step are lists with one value for each. diverged: whether a loss or a parameter has become infinite or
    NaN, in this epoch or earlier. A DivergenceWarning (a RuntimeWarning) names each such network once, with the epoch
    and the step. The training continues for the other replicas.

    Raises TypeError or ValueError for a wrong argument before any training. NaN and infinity in x are such errors. To
    find them, `fit` reads host arrays, memory maps and the first batch of an iterable once, but no device array.

        >>> model, data = bnkit.MLP((64, 100, 10), seed=0), bnkit.data.load("synthetic")
        >>> records = bnkit.fit(model, data, optimizer=bnkit.optim.Adam(), epochs=5, batch_size=100)
        >>> records[-1]["epoch"], records[-1]["step"], records[-1]["loss"] < records[0]["loss"]
        (5, 50, True)
    """
    checks.check_int("epochs", epochs, least=0)
    checks.check_int("seed", seed, least=0)
    checks.check_bool("drop_last", drop_last)
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP, got {type(model).__name__}")
    _check_optimizer(optimizer, model)
    stopping = _check_callbacks(callbacks)
    source, test_part = batches.source(model, data, batch_size, seed, drop_last=drop_last)
    if test_part and test is not None:
        raise ValueError("test must be None for a Dataset, which has a test set, got both; leave out test")
    measured = {"train": (source.x, source.t)} if isinstance(source, Rows) else {}
    if test_part or test is not None:
        measured["test"] = batches.test_set(model, test_part or test)
    run = Run(model, optimizer, source, measured)
    for callback in stopping:
        callback.check_monitor(run.metrics)

    records: list[Record] = []
    settings: Record = {}
    resumed = None
    ended = False
    if checkpoint is not None:
        check_target(checkpoint)
        settings = checkpoints.settings_of(run, batch_size, seed, drop_last=drop_last)
        if Path(checkpoint).exists():
            resumed = checkpoints.load(checkpoint, settings)
            records = resumed.records
            if len(records) > epochs:
                raise ValueError(f"epochs must be at least the {len(records)} of the checkpoint, got {epochs}")
            ended = True in [c.resume(records, resumed.network, resumed.best, resumed.best_epoch) for c in stopping]
    if isinstance(source, Stream) and source.once() and epochs - len(records) > 1 and not ended:
        raise ValueError(
            f"data must be restartable for {epochs - len(records)} epochs, got {type(data).__name__}; pass a list, or "
            f"an object whose __iter__ returns a new iterator"
        )
    if resumed is None:
        optimizer.check(model.params)
    else:
        resumed.load_into(model, optimizer)

    for number in range(len(records), 0 if ended else epochs):
        step = records[-1]["step"] if records else 0
        epoch = train_epoch(run, number, step)
        numbers = {name: _number(model, value) for name, value in epoch.metrics.items()}
        diverged, new = _divergence(_number(model, epoch.diverged), records[-1]["diverged"] if records else False)
        record = {"epoch": number + 1, "step": step + epoch.steps, **numbers, "diverged": diverged}
        records.append(record)
        stops = [callback(record, model) for callback in callbacks]
        if checkpoint is not None and not np.all(diverged):
            # After the callbacks, which may change the learning rate.
            checkpoints.save(checkpoint, settings, records, run, stopping)
        if new:
            _warn(new, number + 1, step)
        if any(stop is True for stop in stops):
            break
    for callback in stopping if records else ():
        callback.restore(model)
    return records


def _check_optimizer(optimizer: object, model: MLP) -> None:
    if not isinstance(optimizer, Optimizer):
        got = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else shown(optimizer)
        name = optimizer.__name__ if isinstance(optimizer, type) else optimizer
        meant = BY_NAME.get(name.lower(), Adam) if isinstance(name, str) else Adam
        raise TypeError(f"optimizer must be an object of bnkit.optim, got {got}; write bnkit.optim.{meant.__name__}()")
    if optimizer.lr.ndim and optimizer.lr.shape != (model.replicas,):
        replicas = "a model without replicas" if model.replicas is None else f"each of {model.replicas} replicas"
        raise ValueError(f"optimizer must have one lr for {replicas}, got {optimizer.lr.size}; pass as many")


def _check_callbacks(callbacks: object) -> list[EarlyStopping]:
    """Check the callbacks, and return those that are EarlyStopping."""
    if not isinstance(callbacks, Sequence):
        got = shown(callbacks)
        raise TypeError(f"callbacks must be a sequence of functions, got {got}; write callbacks=[{got}]")
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of (record, model), got {callback!r}; drop it")
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"callbacks must be functions of (record, model), got the class {name}; write {name}()")
    stopping = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
    restoring = sum(callback.restore_best for callback in stopping)
    if restoring > 1:
        raise ValueError(f"callbacks must hold at most one EarlyStopping with restore_best=True, got {restoring}")
    return stopping


def _divergence(updates: int | list[int], before: bool | list[bool]) -> tuple[bool | list[bool], dict[int | None, int]]:
    """The record's `diverged`, and by replica the update at which a network diverged in this epoch.

    updates: `Epoch.diverged`. before: the `diverged` of the last record. With replicas both are lists.
    """
    if not isinstance(updates, list):
        return bool(before or updates), {None: updates} if updates and not before else {}
    earlier = before if isinstance(before, list) else [False] * len(updates)
    pairs = list(zip(updates, earlier, strict=True))
    return [bool(now or was) for now, was in pairs], {r: now for r, (now, was) in enumerate(pairs) if now and not was}


def _warn(updates: dict[int | None, int], epoch: int, step: int) -> None:
    """Warn of the networks that diverged in `epoch`, which began after `step` updates."""
    where = [f"step {step + n}" + ("" if r is None else f" (replica {r})") for r, n in updates.items()]
    warnings.warn(
        f"the training diverged in epoch {epoch}, at {', '.join(where)}: a loss or a parameter is infinite or NaN; "
        f"a smaller learning rate, other initial weights or scaled data may help",
        DivergenceWarning,
        stacklevel=3,
    )


def _number(model: MLP, value: Array) -> Any:
    """A Python number, or a list with one number for each replica."""
    host: Any = (model.backend.to_numpy(value) if model.backend.name != "numpy" else np.asarray(value)).tolist()
    return host
