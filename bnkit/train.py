"""fit(): training by epochs, with a record of each, callbacks, and a checkpoint from which a killed run goes on."""

import functools
import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint as files
from . import checks, lockstep
from .backend import Array
from .data import Dataset
from .init import generator
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
    data: Dataset | tuple[np.ndarray, np.ndarray],
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """Train `model` in place, and return one record an epoch.

    Replicas train in parts where the backend does several things at the same time, to the same numbers.

    An epoch is one pass over the training data in an order drawn from (seed, epoch), in batches of `batch_size` rows;
    the last batch is smaller where the rows do not divide. data: a Dataset, or (x, t) without a test set.

    A record holds epoch (from 1), step (updates so far), loss (mean over the rows of the epoch, as trained),
    train_accuracy and, with a test set, test_accuracy (both in inference); with replicas, lists of one value each.
    callbacks: called with (record, model) after each epoch; True from one of them ends the training.
    checkpoint: a file that is written after each epoch and its callbacks and, where it exists, gone on from: a run that
    was killed and started again ends with the same model and records as one that was not.
    """
    checks.check_int("epochs", epochs, least=0)
    checks.check_int("batch_size", batch_size)
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
    (x, t), *test = [model.prepare(*pair) for pair in _pairs(data)]
    rows = x.shape[0]
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most the {rows} rows of the data, got {batch_size}")
    _check_last_batch(model, rows, batch_size)
    records: list[Record] = []
    settings: Record = {}
    if checkpoint is not None:
        files.check_target(checkpoint)
        settings = _settings(model, optimizer, [(x, t), *test], batch_size, seed)
        if Path(checkpoint).exists():
            records = _resume(checkpoint, settings, model, optimizer)
        if len(records) > epochs:
            raise ValueError(f"epochs must be at least the {len(records)} of the checkpoint, got {epochs}")
        stops = [c(record, model) for record in records for c in callbacks if isinstance(c, EarlyStopping)]
        if True in stops:
            return records

    batches = math.ceil(rows / batch_size)
    for epoch in range(len(records), epochs):
        order = generator("order", seed, epoch).permutation(rows)
        pieces = [order[i * batch_size : (i + 1) * batch_size] for i in range(batches)]
        measured = _epoch(model, optimizer, [(x, t), *test], pieces, epoch * batches)
        record = {"epoch": epoch + 1, "step": (epoch + 1) * batches}
        record |= {name: _number(model, value) for name, value in measured.items()}
        records.append(record)
        stops = [callback(record, model) for callback in callbacks]
        if checkpoint is not None:  # after the callbacks, which may change the learning rate
            _save(checkpoint, settings, records, model, optimizer)
        if any(stop is True for stop in stops):
            break
    return records


def _epoch(model: MLP, optimizer: Optimizer, data: list[Any], pieces: list[np.ndarray], step: int) -> dict[str, Array]:
    """The numbers of an epoch's record; replicas are trained in parts where the backend does so at the same time."""
    products = data[0][0].shape[0] * sum(inputs * outputs for inputs, outputs in itertools.pairwise(model.sizes))
    parts = [] if model.replicas is None else lockstep.cuts(model.backend, model.replicas, products)
    if len(parts) < 2 or type(model) is not MLP:  # a subclass may keep what is no part's
        return _train(model, optimizer, data, pieces, step)
    models, optimizers = [model.part(p) for p in parts], [optimizer.part(model.params, p) for p in parts]
    tasks = [functools.partial(_train, *own, data, pieces, step) for own in zip(models, optimizers, strict=True)]
    measured = model.backend.run(tasks)
    optimizer.steps = optimizers[0].steps
    return {name: model.backend.xp.concat([m[name] for m in measured]) for name in measured[0]}


def _train(model: MLP, optimizer: Optimizer, data: list[Any], pieces: list[np.ndarray], step: int) -> dict[str, Array]:
    """An epoch from update `step` on, in batches of the rows that `pieces` names."""
    (x, t), *test = data
    loss: Any = 0.0
    for i, piece in enumerate(pieces):
        chosen = model.backend.asarray(piece)
        batch = (model.backend.xp.take(a, chosen, axis=0) for a in (x, t))
        batch_loss, grads = model.loss_and_grads(*batch, step=step + i)
        optimizer.update(model.params, grads)
        loss = loss + batch_loss * (chosen.shape[0] / x.shape[0])
    measured = {"loss": loss, "train_accuracy": model.accuracy(x, t)}
    for pair in test:
        measured["test_accuracy"] = model.accuracy(*pair)
    return measured


def _pairs(data: Any) -> list[tuple[Any, Any]]:
    """The training set's (x, t) and, of a Dataset, the test set's."""
    if not isinstance(data, tuple) or len(data) not in (2, 4):
        raise TypeError(f"data must be a Dataset or (x, t), got {type(data).__name__}")
    if not all(hasattr(a, "shape") for a in data):
        raise TypeError(f"data must hold arrays, got {', '.join(type(a).__name__ for a in data)}")
    if len(data[0].shape) != 2:
        raise ValueError(f"data must hold x as (rows, inputs), got {tuple(data[0].shape)}")
    return [(data[i], data[i + 1]) for i in range(0, len(data), 2)]


def _check_last_batch(model: MLP, rows: int, batch_size: int) -> None:
    """Batch norm that moves a running variance with correction 1 cannot train on a batch of one row."""
    if not any(name.endswith("running_var") for name in model.state):
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


def _settings(model: MLP, optimizer: Optimizer, data: list[Any], batch_size: int, seed: int) -> Record:
    """What must be the same for a resumed run to be the run; the data by their shapes and checksums."""
    arrays = [np.ascontiguousarray(model.backend.to_numpy(a)) for pair in data for a in pair]
    return {
        "model": model.config,
        "optimizer": repr(optimizer),
        "data": [[*a.shape, zlib.crc32(a.data)] for a in arrays],
        "batch_size": int(batch_size),
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
