"""The file from which `fit` goes on: settings, records, the network, the optimizer's memory and the best network."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnkit.nn import archive
from bnkit.nn.mlp import MLP
from bnkit.training.batches import Batch, Rows, Stream, identity
from bnkit.training.callbacks import EarlyStopping, Record
from bnkit.training.optimizers import Optimizer

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """A training after some epochs, as a checkpoint holds it."""

    source: str  # the file, for messages
    records: list[Record]
    network: Arrays  # by the names of `MLP.arrays`
    memory: Arrays  # by the names of `Optimizer.state`
    steps: int
    lr: Any
    best: Arrays  # the network of `best_epoch`, empty where no callback keeps it
    best_epoch: Any  # one entry for each replica

    def load_into(self, model: MLP, optimizer: Optimizer) -> None:
        """Write network and memory into the model and the optimizer; ValueError before that where they do not fit."""
        known = model.arrays()
        archive.check_names(known, self.network, self.source)
        if self.best:
            archive.check_names(known, self.best, f"{self.source}: best network")
        parameters = {k.removeprefix("params/"): a for k, a in known.items() if k.startswith("params/")}
        slots = {f"{name}/{slot}": a for name, a in parameters.items() for slot in optimizer.slots}
        archive.check_names({k: slots.get(k) for k in self.memory}, self.memory, f"{self.source}: optimizer")
        model.set_arrays(self.network, source=self.source)
        optimizer.reset()
        optimizer.steps, optimizer.lr = self.steps, self.lr
        optimizer.state = {name: model.backend.asarray(array) for name, array in self.memory.items()}


def settings_of(
    model: MLP,
    optimizer: Optimizer,
    source: Rows | Stream,
    measured: Mapping[str, Batch],
    batch_size: int | None,
    seed: int,
    *,
    drop_last: bool,
) -> Record:
    """What must be the same for a resumed run to be the run; the data by their shapes and checksums."""
    data = [identity(model.backend, a) for pair in measured.values() for a in pair]
    return {
        "model": model.config,
        "optimizer": repr(optimizer),
        "data": data if isinstance(source, Rows) else ["batches", *data],
        "batch_size": None if batch_size is None else int(batch_size),
        "seed": int(seed),
        **({"drop_last": True} if drop_last else {}),  # older files have no such setting
    }


def load(path: str | os.PathLike[str], settings: Record) -> Training:
    """The training in the file; ValueError where its settings differ."""
    description, arrays = archive.load(path, "fit")
    source = f"checkpoint {os.fspath(path)}"
    wanted, present = json.loads(json.dumps(settings)), description.get("settings", {})
    differing = [k for k in {**wanted, **present} if present.get(k) != wanted.get(k)]
    if differing:
        raise ValueError(
            f"{source} must be of the same training, but differs in {' and '.join(differing)}; choose another file, or "
            f"delete it to start anew"
        )
    return Training(
        source=source,
        records=[_completed(record) for record in description["records"]],
        network={k: v for k, v in arrays.items() if not k.startswith(("optimizer/", "best/"))},
        memory=_unprefixed(arrays, "optimizer/"),
        steps=description["steps"],
        lr=description["lr"],
        best=_unprefixed(arrays, "best/"),
        best_epoch=description.get("best_epoch", 0),
    )


def save(
    path: str | os.PathLike[str],
    settings: Record,
    records: list[Record],
    model: MLP,
    optimizer: Optimizer,
    stopping: Sequence[EarlyStopping],
) -> None:
    arrays = model.arrays()
    arrays |= {f"optimizer/{name}": model.backend.to_numpy(array) for name, array in optimizer.state.items()}
    description = {"settings": settings, "records": records, "steps": optimizer.steps, "lr": optimizer.lr.tolist()}
    for callback in stopping:
        if callback.best_arrays:
            description["best_epoch"] = np.asarray(callback.best_epoch).tolist()
            arrays |= {f"best/{name}": array for name, array in callback.best_arrays.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)  # it was there at the start, and is what a resumption needs
    archive.save(path, "fit", description, arrays)


def _completed(record: Record) -> Record:
    """The record with the fields that older files lack: NaN for a test loss that was not measured."""
    replicas = len(record["loss"]) if isinstance(record["loss"], list) else None
    added: Record = {"test_loss": np.nan} if "test_accuracy" in record else {}
    added["diverged"] = False
    missing = {name: value for name, value in added.items() if name not in record}
    return record | {name: value if replicas is None else [value] * replicas for name, value in missing.items()}


def _unprefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
