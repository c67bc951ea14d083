"""The file from which `fit` resumes: settings, records, network, optimizer state and best network."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnkit.nn import archive
from bnkit.nn.archive import HostArrays
from bnkit.nn.mlp import MLP
from bnkit.training.batches import Rows, identity
from bnkit.training.callbacks import EarlyStopping, Record
from bnkit.training.epoch import Run
from bnkit.training.optimizers import Optimizer


@dataclass(frozen=True)
class Training:
    """The state of a training after an epoch, as a checkpoint holds it."""

    source: str  # names the file in messages
    records: list[Record]
    network: HostArrays  # by the names of `MLP.arrays`
    memory: HostArrays  # by the names of `Optimizer.state`
    steps: int
    lr: float | list[float]
    best: HostArrays  # the network of `best_epoch`; empty unless a callback has restore_best
    best_epoch: int | list[int]  # a list with one epoch for each replica

    def load_into(self, model: MLP, optimizer: Optimizer) -> None:
        """Write the network and the optimizer state. ValueError before any write if a name, shape or dtype differs."""
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


def settings_of(run: Run, batch_size: int | None, seed: int, *, drop_last: bool) -> Record:
    """The settings that a resumed run must share. Shapes and checksums represent the data."""
    data = [identity(run.model.backend, a) for pair in run.measured.values() for a in pair]
    return {
        "model": run.model.config,
        "optimizer": repr(run.optimizer),
        "data": data if isinstance(run.source, Rows) else ["batches", *data],
        "batch_size": None if batch_size is None else int(batch_size),
        "seed": int(seed),
        **({"drop_last": True} if drop_last else {}),  # absent in older files
    }


def load(path: str | os.PathLike[str], settings: Record) -> Training:
    """The training in the file; ValueError if its settings differ."""
    description, arrays = archive.load(path, "fit")
    source = f"checkpoint {os.fspath(path)}"
    expected, actual = json.loads(json.dumps(settings)), description.get("settings", {})
    differing = [k for k in {**expected, **actual} if actual.get(k) != expected.get(k)]
    if differing:
        raise ValueError(
            f"{source} must be of the same training, but differs in {' and '.join(differing)}; choose another file, or "
            f"delete it to start again"
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
    records: Sequence[Record],
    run: Run,
    stopping: Sequence[EarlyStopping],
) -> None:
    """Write the file, whole or not at all."""
    model, optimizer = run.model, run.optimizer
    arrays = model.arrays()
    arrays |= {f"optimizer/{name}": model.backend.to_numpy(array) for name, array in optimizer.state.items()}
    description = {"settings": settings, "records": records, "steps": optimizer.steps, "lr": optimizer.lr.tolist()}
    for callback in stopping:
        if callback.best_arrays:
            description["best_epoch"] = np.asarray(callback.best_epoch).tolist()
            arrays |= {f"best/{name}": array for name, array in callback.best_arrays.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)  # the folder may be deleted while `fit` runs
    archive.save(path, "fit", description, arrays)


def _completed(record: Record) -> Record:
    """The record with the fields that older files lack; a test loss that was not measured is NaN."""
    replicas = len(record["loss"]) if isinstance(record["loss"], list) else None
    added: Record = {"test_loss": np.nan} if "test_accuracy" in record else {}
    added["diverged"] = False
    missing = {name: value for name, value in added.items() if name not in record}
    return record | {name: value if replicas is None else [value] * replicas for name, value in missing.items()}


def _unprefixed(arrays: HostArrays, prefix: str) -> HostArrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
