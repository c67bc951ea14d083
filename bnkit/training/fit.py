"""fit(): training by epochs, with a record of each, callbacks, and a checkpoint from which a killed run goes on."""

import functools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnkit.backend import Array, checks
from bnkit.backend.messages import shown
from bnkit.data import Dataset
from bnkit.nn import lockstep
from bnkit.nn.files import check_target
from bnkit.nn.mlp import MLP
from bnkit.training import batches
from bnkit.training import checkpoint as training_checkpoint
from bnkit.training.batches import Batch, Rows, Stream
from bnkit.training.callbacks import Callback, EarlyStopping, Record
from bnkit.training.optimizers import BY_NAME, Adam, Optimizer

Metrics = dict[str, Array]


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
    """Train `model` in place, and return one record an epoch.

    Replicas train in parts where the backend does several things at the same time, to the same numbers.

    data: a Dataset, or the tuple (x, t) with x (rows, inputs) and t (rows,) integer labels or (rows, classes) weights.
    An epoch is one pass over the training rows in an order drawn from (seed, epoch), in batches of `batch_size`. The
    last batch is smaller where the rows do not divide, or left out with drop_last=True (other rows in each epoch). An x
    that is a memory map (np.load(…, mmap_mode="r")) is read batch by batch, and may be larger than memory; all other
    arrays are moved to the backend at the start.
    Or an iterable of batches (x, t), which are trained on as they come, without `batch_size`, `drop_last` and `seed`.
    An epoch is one pass over it; with several epochs it must be restartable.
    test: (x, t), where `data` is no Dataset and so has no test set.
    optimizer: an object of `bnkit.optim`; each model needs a new one.

    A record holds epoch (from 1), step (updates so far), loss (mean over the rows of the epoch, as trained),
    train_accuracy, unless `data` is an iterable, and with a test set test_accuracy and test_loss (all in inference, as
    `model.accuracy` and `model.loss`), and diverged. With replicas all but the first two are lists of one value each.
    diverged: whether a loss or a parameter was infinite or NaN in this epoch or before. A DivergenceWarning (a
    RuntimeWarning) names each such network once, with the epoch and the step; the training goes on, for the sake of the
    other replicas.
    callbacks: called with (record, model) after each epoch; True from one of them ends the training.
    checkpoint: a file that `fit` writes after each epoch and its callbacks, and resumes from if it exists. A killed run
    that is started again ends like an uninterrupted one, if an iterable yields the same batches in every epoch. Once
    every network has diverged, the file stays as it was in the epoch before.

    Raises TypeError or ValueError for a mistaken argument before anything is trained. NaN and infinity in x are such a
    mistake: host arrays are read once for it, memory maps too, and of an iterable the first batch. Arrays on a device
    are not read.

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
    source, own_test = batches.source(model, data, batch_size, seed, drop_last=drop_last)
    if own_test and test is not None:
        raise ValueError("test must be left out where data is a Dataset, which has its own")
    evaluated = {"train": (source.x, source.t)} if isinstance(source, Rows) else {}
    if own_test or test is not None:
        evaluated["test"] = batches.test_set(model, own_test or test)
    for callback in stopping:
        callback.check_monitor(_metric_names(evaluated))

    records: list[Record] = []
    settings: Record = {}
    resumed = None
    ended = False
    if checkpoint is not None:
        check_target(checkpoint)
        settings = training_checkpoint.settings_of(
            model, optimizer, source, evaluated, batch_size, seed, drop_last=drop_last
        )
        if Path(checkpoint).exists():
            resumed = training_checkpoint.load(checkpoint, settings)
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

    for epoch in range(len(records), 0 if ended else epochs):
        step = records[-1]["step"] if records else 0
        steps, metrics = _epoch(model, optimizer, source, epoch, step, evaluated)
        numbers = {name: _number(model, value) for name, value in metrics.items()}
        diverged, new = _divergence(numbers.pop("diverged"), records[-1]["diverged"] if records else False)
        record = {"epoch": epoch + 1, "step": step + steps, **numbers, "diverged": diverged}
        records.append(record)
        stops = [callback(record, model) for callback in callbacks]
        if checkpoint is not None and not np.all(diverged):
            # After the callbacks, which may change the learning rate.
            training_checkpoint.save(checkpoint, settings, records, model, optimizer, stopping)
        if new:
            _warn(new, epoch + 1, step)
        if any(stop is True for stop in stops):
            break
    for callback in stopping if records else ():
        callback.restore(model)
    return records


def _check_optimizer(optimizer: Any, model: MLP) -> None:
    if not isinstance(optimizer, Optimizer):
        got = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else shown(optimizer)
        name = optimizer.__name__ if isinstance(optimizer, type) else optimizer
        meant = BY_NAME.get(name.lower(), Adam) if isinstance(name, str) else Adam
        raise TypeError(f"optimizer must be an object of bnkit.optim, got {got}; write bnkit.optim.{meant.__name__}()")
    if optimizer.lr.ndim and optimizer.lr.shape != (model.replicas,):
        replicas = "a model without replicas" if model.replicas is None else f"each of {model.replicas} replicas"
        raise ValueError(f"optimizer must have one lr for {replicas}, got {optimizer.lr.size}")


def _check_callbacks(callbacks: Any) -> list[EarlyStopping]:
    """The EarlyStopping callbacks."""
    if not isinstance(callbacks, Sequence):
        got = shown(callbacks)
        raise TypeError(f"callbacks must be a sequence of functions, got {got}; write callbacks=[{got}]")
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of (record, model), got {callback!r}")
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"callbacks must be functions of (record, model), got the class {name}; write {name}()")
    stopping = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
    restoring = sum(callback.restore_best for callback in stopping)
    if restoring > 1:
        raise ValueError(f"callbacks must hold at most one EarlyStopping with restore_best=True, got {restoring}")
    return stopping


def _epoch(
    model: MLP, optimizer: Optimizer, source: Rows | Stream, epoch: int, step: int, evaluated: dict[str, Batch]
) -> tuple[int, Metrics]:
    """How many updates, and the numbers of the record; replicas train in parts where the backend does several."""
    parts: list[slice] = []
    if isinstance(source, Rows) and model.replicas is not None and type(model) is MLP:  # a subclass may keep more
        each = lockstep.multiplications(model.sizes, source.x.shape[0])
        parts = lockstep.cuts(model.backend, model.replicas, each)
    if len(parts) < 2 or any(norm.reduce is not None for norm in model.norms):  # ranks must reduce in one order
        return _train(model, optimizer, source.epoch(epoch, model), step, evaluated)
    models, optimizers = [model.part(p) for p in parts], [optimizer.part(model.params, p) for p in parts]
    tasks = [
        functools.partial(_train, *pair, source.epoch(epoch, model), step, evaluated)
        for pair in zip(models, optimizers, strict=True)
    ]
    results = model.backend.run(tasks)
    optimizer.steps = optimizers[0].steps
    names = results[0][1]
    return results[0][0], {name: model.backend.xp.concat([numbers[name] for _, numbers in results]) for name in names}


def _train(
    model: MLP, optimizer: Optimizer, source: Iterator[Batch], step: int, evaluated: dict[str, Batch]
) -> tuple[int, Metrics]:
    """Train an epoch from update `step` on; return the number of its updates and its metrics.

    "diverged" is the first update (from 1) whose loss is not finite; else the last update if a parameter is not finite;
    else 0.
    """
    xp = model.backend.xp
    loss: Any = 0.0
    steps = rows = 0
    survived: Any = 0  # updates before the sum of the losses was not finite, which it then stays
    for x, t in source:
        batch_loss, grads = model.loss_and_grads(x, t, step=step + steps)
        optimizer.update(model.params, grads)
        loss = loss + batch_loss * x.shape[-2]
        survived = survived + xp.astype(xp.asarray(xp.isfinite(loss)), xp.int64)
        steps, rows = steps + 1, rows + x.shape[-2]
    metrics = {"loss": loss / rows}
    if "train" in evaluated:
        metrics["train_accuracy"] = model.accuracy(*evaluated["train"])
    if "test" in evaluated:
        test_loss, test_accuracy = model.loss_and_accuracy(*evaluated["test"])
        metrics |= {"test_accuracy": test_accuracy, "test_loss": test_loss}
    last = xp.where(xp.asarray(model.finite()), xp.zeros_like(survived), xp.full_like(survived, steps))
    return steps, metrics | {"diverged": xp.where(survived < steps, survived + 1, last)}


def _metric_names(evaluated: dict[str, Batch]) -> list[str]:
    """The metrics of a record, which an EarlyStopping can monitor."""
    names = {"train": ["train_accuracy"], "test": ["test_accuracy", "test_loss"]}
    return ["loss", *(name for part in evaluated for name in names[part])]


def _divergence(updates: Any, before: Any) -> tuple[Any, dict[int | None, int]]:
    """What the record says of divergence, and the update of each network that diverged in this epoch, by replica.

    updates: "diverged" of `_train`. before: what the record of the epoch before says. Lists with replicas.
    """
    if not isinstance(updates, list):
        return bool(before or updates), {None: updates} if updates and not before else {}
    earlier = before or [False] * len(updates)
    pairs = list(zip(updates, earlier, strict=True))
    return [bool(now or was) for now, was in pairs], {r: now for r, (now, was) in enumerate(pairs) if now and not was}


def _warn(updates: dict[int | None, int], epoch: int, step: int) -> None:
    """Warn of the networks that diverged in `epoch`, before which there were `step` updates."""
    where = [f"step {step + n}" + ("" if r is None else f" (replica {r})") for r, n in updates.items()]
    warnings.warn(
        f"the training diverged in epoch {epoch}, at {', '.join(where)}: a loss or a parameter is infinite or NaN; "
        f"a smaller learning rate, other initial weights or scaled data may help",
        DivergenceWarning,
        stacklevel=3,
    )


def _number(model: MLP, value: Any) -> Any:
    """A Python number, or with replicas a list of them."""
    host: Any = (model.backend.to_numpy(value) if model.backend.name != "numpy" else np.asarray(value)).tolist()
    return host
