"""fit(): training by epochs, with a record of each, callbacks, and a checkpoint from which a killed run goes on."""

import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint as files
from . import checks, lockstep
from .backend import Array
from .batches import Rows, Stream, identity
from .data import Dataset
from .mlp import MLP
from .optim import Optimizer

Record = dict[str, Any]
Callback = Callable[[Record, MLP], Any]


class EarlyStopping:
    """A callback that stops once `monitor` has not improved on its best for `patience` epochs.

    monitor: a number of the record (with replicas, its mean counts). A name with "loss" improves downwards, others
    upwards. It starts anew at each epoch 1; a run that is gone on from a checkpoint shows it the past records first.
    """

    def __init__(self, monitor: str = "test_accuracy", *, patience: int = 5, min_delta: float = 0.0) -> None:
        checks.check_int("patience", patience)
        checks.check_real("min_delta", min_delta, least=0.0)
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.best, self.waited = -math.inf, 0

    def __call__(self, record: Record, model: MLP) -> bool:
        if record["epoch"] == 1:
            self.best, self.waited = -math.inf, 0
        if self.monitor not in record:
            raise ValueError(f"monitor must be one of {', '.join(record)}, got {self.monitor!r}")
        value = float(np.mean(record[self.monitor])) * (-1 if "loss" in self.monitor else 1)
        if value > self.best + self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience


def fit(
    model: MLP,
    data: Dataset | tuple[np.ndarray, np.ndarray] | Iterable[Any],
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int | None = None,
    seed: int = 0,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """Train `model` in place, and return one record an epoch.

    Replicas train in parts where the backend does several things at the same time, to the same numbers.

    data: a Dataset, or (x, t). An epoch is one pass over the training rows in an order drawn from (seed, epoch), in
    batches of `batch_size`; the last batch is smaller where the rows do not divide. An x that is a memory map
    (np.load(…, mmap_mode="r")) is read batch by batch, and may be larger than memory; all other arrays are moved to the
    backend at the start.
    Or an iterable of batches (x, t), which are trained on as they come, without `batch_size` and `seed`; an epoch is
    one pass over it, so that several need one which can be gone through anew.
    test: (x, t), where `data` is no Dataset and so has none of its own.

    A record holds epoch (from 1), step (updates so far), loss (mean over the rows of the epoch, as trained),
    train_accuracy, unless `data` is an iterable, and with a test set test_accuracy (both in inference); with replicas,
    lists of one value each.
    callbacks: called with (record, model) after each epoch; True from one of them ends the training.
    checkpoint: a file that is written after each epoch and its callbacks and, where it exists, gone on from: a run that
    was killed and started again ends with the same model and records as one that was not, if an iterable gives the
    same batches in every epoch.
    """
    checks.check_int("epochs", epochs, least=0)
    checks.check_int("seed", seed, least=0)
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP, got {type(model).__name__}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be one of bnkit.optim, got {optimizer!r}")
    if optimizer.lr.ndim and optimizer.lr.shape != (model.replicas,):
        replicas = "a model without replicas" if model.replicas is None else f"each of {model.replicas} replicas"
        raise ValueError(f"optimizer must have one lr for {replicas}, got {optimizer.lr.size}")
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks must be a sequence of functions, got {callbacks!r}")
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of (record, model), got {callback!r}")
    source, measured = _source(model, data, test, batch_size, seed)
    records: list[Record] = []
    settings: Record = {}
    if checkpoint is not None:
        files.check_target(checkpoint)
        settings = _settings(model, optimizer, source, measured, batch_size, seed)
        if Path(checkpoint).exists():
            records = _resume(checkpoint, settings, model, optimizer)
        if len(records) > epochs:
            raise ValueError(f"epochs must be at least the {len(records)} of the checkpoint, got {epochs}")
        stops = [c(record, model) for record in records for c in callbacks if isinstance(c, EarlyStopping)]
        if True in stops:
            return records
    if isinstance(source, Stream) and source.once() and epochs - len(records) > 1:
        raise ValueError(
            f"data must be what can be gone through anew for {epochs - len(records)} epochs, as a list or an object "
            f"with __iter__, got {type(data).__name__}"
        )

    for epoch in range(len(records), epochs):
        step = records[-1]["step"] if records else 0
        steps, found = _epoch(model, optimizer, source, epoch, step, measured)
        record = {"epoch": epoch + 1, "step": step + steps}
        record |= {name: _number(model, value) for name, value in found.items()}
        records.append(record)
        stops = [callback(record, model) for callback in callbacks]
        if checkpoint is not None:  # after the callbacks, which may change the learning rate
            _save(checkpoint, settings, records, model, optimizer)
        if any(stop is True for stop in stops):
            break
    return records


def _epoch(
    model: MLP, optimizer: Optimizer, source: Rows | Stream, epoch: int, step: int, measured: dict[str, Any]
) -> tuple[int, dict[str, Array]]:
    """How many updates, and the numbers of the record; replicas train in parts where the backend does several."""
    parts: list[slice] = []
    if isinstance(source, Rows) and model.replicas is not None and type(model) is MLP:  # a subclass may keep more
        each = lockstep.multiplications(model.sizes, source.x.shape[0])
        parts = lockstep.cuts(model.backend, model.replicas, each)
    if len(parts) < 2 or any(norm.reduce is not None for norm in model.norms):  # ranks must reduce in one order
        return _train(model, optimizer, source.epoch(epoch, model), step, measured)
    models, optimizers = [model.part(p) for p in parts], [optimizer.part(model.params, p) for p in parts]
    tasks = [
        functools.partial(_train, *own, source.epoch(epoch, model), step, measured)
        for own in zip(models, optimizers, strict=True)
    ]
    found = model.backend.run(tasks)
    optimizer.steps = optimizers[0].steps
    return found[0][0], {name: model.backend.xp.concat([f[name] for _, f in found]) for name in found[0][1]}


def _train(
    model: MLP, optimizer: Optimizer, batches: Iterator[Any], step: int, measured: dict[str, Any]
) -> tuple[int, dict[str, Array]]:
    """An epoch from update `step` on; how many updates it was, and the numbers of its record."""
    loss: Any = 0.0
    steps = rows = 0
    for x, t in batches:
        batch_loss, grads = model.loss_and_grads(x, t, step=step + steps)
        optimizer.update(model.params, grads)
        loss = loss + batch_loss * x.shape[-2]
        steps, rows = steps + 1, rows + x.shape[-2]
    return steps, {"loss": loss / rows, **{name: model.accuracy(*pair) for name, pair in measured.items()}}


def _source(
    model: MLP, data: Any, test: Any, batch_size: int | None, seed: int
) -> tuple[Rows | Stream, dict[str, tuple[Array, Array]]]:
    """Where the batches come from, and the sets whose accuracies a record holds, by the names that they have there."""
    arrays = isinstance(data, tuple) and all(hasattr(a, "shape") for a in data)
    if isinstance(data, tuple) and not arrays and batch_size is not None:
        raise TypeError(f"data must hold arrays, got {', '.join(type(a).__name__ for a in data)}")
    if not arrays:
        if not isinstance(data, Iterable) or isinstance(data, (str, bytes)) or hasattr(data, "shape"):
            raise TypeError(f"data must be a Dataset, (x, t) or an iterable of batches, got {type(data).__name__}")
        if batch_size is not None:
            raise ValueError(f"batch_size must be left out where data gives batches, got {batch_size}")
        return Stream(data), _test_set(model, test)
    if len(data) not in (2, 4):
        raise TypeError(f"data must be a Dataset or (x, t), got {len(data)} arrays")
    if len(data) == 4 and test is not None:
        raise ValueError("test must be left out where data is a Dataset, which has its own")
    if batch_size is None:
        raise TypeError("batch_size must be given where data is arrays")
    checks.check_int("batch_size", batch_size)
    if len(data[0].shape) != 2:
        raise ValueError(f"data must hold x as (rows, inputs), got {tuple(data[0].shape)}")
    x, t = model.prepare(*data[:2])
    rows = x.shape[0]
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most the {rows} rows of the data, got {batch_size}")
    _check_last_batch(model, rows, batch_size)
    return Rows(x, t, batch_size, seed), {"train_accuracy": (x, t), **_test_set(model, data[2:] or test)}


def _test_set(model: MLP, test: Any) -> dict[str, tuple[Array, Array]]:
    if test is None:
        return {}
    if not isinstance(test, tuple) or len(test) != 2 or not all(hasattr(a, "shape") for a in test):
        raise TypeError(f"test must be (x, t), got {type(test).__name__}")
    return {"test_accuracy": model.prepare(*test)}


def _check_last_batch(model: MLP, rows: int, batch_size: int) -> None:
    """Batch norm that moves a running variance with correction 1 cannot train on a batch of one row."""
    if not any(norm.moves_statistics for norm in model.norms):
        return
    options = model.config["batch_norm"]
    options = options if isinstance(options, dict) else {}
    if options.get("correction", 1) == 0:
        return
    for batch in {batch_size, rows % batch_size} - {0}:
        ghost = options.get("ghost") or batch
        if 1 in {min(batch, ghost), batch % ghost if batch > ghost else 0}:
            got = f"{batch_size} for {rows} rows" + (f" and ghost={ghost}" if options.get("ghost") else "")
            raise ValueError(
                f"batch_size must leave no batch of 1 row to batch norm with correction=1, got {got}; choose another, "
                f"or correction=0"
            )


def _settings(
    model: MLP,
    optimizer: Optimizer,
    source: Rows | Stream,
    measured: dict[str, tuple[Array, Array]],
    batch_size: int | None,
    seed: int,
) -> Record:
    """What must be the same for a resumed run to be the run; the data by their shapes and checksums."""
    data = [identity(model.backend, a) for pair in measured.values() for a in pair]
    return {
        "model": model.config,
        "optimizer": repr(optimizer),
        "data": data if isinstance(source, Rows) else ["batches", *data],
        "batch_size": None if batch_size is None else int(batch_size),
        "seed": int(seed),
    }


def _resume(path: str | os.PathLike[str], settings: Record, model: MLP, optimizer: Optimizer) -> list[Record]:
    found, arrays = files.load(path, "fit")
    wanted = json.loads(json.dumps(settings))
    differing = [k for k in wanted if found.get("settings", {}).get(k) != wanted[k]]
    if differing:
        raise ValueError(
            f"checkpoint {os.fspath(path)} must be of the same training, but its {' and '.join(differing)} differ; "
            f"choose another file, or delete it to start anew"
        )
    memory = {name: array for name, array in arrays.items() if name.startswith("optimizer/")}
    model.set_arrays({k: v for k, v in arrays.items() if k not in memory}, source=os.fspath(path))
    optimizer.steps, optimizer.lr = found["steps"], found["lr"]
    optimizer.state = {name.partition("/")[2]: model.backend.asarray(array) for name, array in memory.items()}
    records: list[Record] = found["records"]
    return records


def _save(
    path: str | os.PathLike[str], settings: Record, records: list[Record], model: MLP, optimizer: Optimizer
) -> None:
    memory = {f"optimizer/{name}": model.backend.to_numpy(array) for name, array in optimizer.state.items()}
    description = {"settings": settings, "records": records, "steps": optimizer.steps, "lr": optimizer.lr.tolist()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)  # it was there at the start, and is what a resumption needs
    files.save(path, "fit", description, {**model.arrays(), **memory})


def _number(model: MLP, value: Any) -> Any:
    """A Python float, or with replicas a list of them."""
    host: Any = (model.backend.to_numpy(value) if model.backend.name != "numpy" else np.asarray(value)).tolist()
    return host
