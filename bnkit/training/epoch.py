"""One epoch of `fit`: its updates, and the metrics of its record."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from bnkit.backend import Array
from bnkit.nn import lockstep
from bnkit.nn.mlp import MLP
from bnkit.training.batches import Batch, Rows, Stream
from bnkit.training.optimizers import Optimizer


class Metric(NamedTuple):
    label: str  # as the command line prints it
    rows: str | None  # "train" or "test": the rows to measure after the epoch; None: the epoch's batches


METRICS = {
    "loss": Metric("training loss", None),
    "train_accuracy": Metric("training accuracy", "train"),
    "test_accuracy": Metric("test accuracy", "test"),
    "test_loss": Metric("test loss", "test"),
}
"""The metrics of a record by name, in the order of its fields."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The model, optimizer and batches of an epoch, and the rows to measure after it: "train", "test", both or none."""

    model: MLP
    optimizer: Optimizer
    source: Rows | Stream
    measured: Mapping[str, Batch]

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics in a record."""
        return [name for name, metric in METRICS.items() if metric.rows is None or metric.rows in self.measured]

    def part(self, replicas: slice) -> "Run":
        """The run of a slice of the replicas, on the same memory."""
        model, optimizer = self.model.part(replicas), self.optimizer.part(self.model.params, replicas)
        return dataclasses.replace(self, model=model, optimizer=optimizer)


class Epoch(NamedTuple):
    steps: int
    metrics: dict[str, Array]
    diverged: Array  # see `_train`


def train_epoch(run: Run, number: int, step: int) -> Epoch:
    """Train epoch `number`, which begins at update `step`. Replicas with enough work share the backend's threads."""
    model = run.model
    cuts: list[slice] = []
    if isinstance(run.source, Rows) and model.replicas is not None and type(model) is MLP:  # subclasses may hold more
        each = lockstep.multiplications(model.sizes, run.source.x.shape[0])
        cuts = lockstep.cuts(model.backend, model.replicas, each)
    if len(cuts) < 2 or any(norm.reduce is not None for norm in model.norms):  # ranks must reduce in one order
        return _train(run, number, step)
    parts = [run.part(replicas) for replicas in cuts]
    epochs = model.backend.run([functools.partial(_train, part, number, step) for part in parts])
    run.optimizer.steps = parts[0].optimizer.steps
    concat = model.backend.xp.concat
    return Epoch(
        epochs[0].steps,
        {name: concat([epoch.metrics[name] for epoch in epochs]) for name in epochs[0].metrics},
        concat([epoch.diverged for epoch in epochs]),
    )


def _train(run: Run, number: int, step: int) -> Epoch:
    """Train an epoch in this thread.

    `diverged` is the first update (from 1) with a loss that is infinite or NaN. If there is none, it is the last update
    if a parameter is not finite, else 0.
    """
    model, xp = run.model, run.model.backend.xp
    loss: Any = 0.0
    survived: Any = 0  # updates before the sum of the losses became infinite or NaN, which it then stays
    steps = rows = 0
    for x, t in run.source.epoch(number, model):
        batch_loss, grads = model.loss_and_grads(x, t, step=step + steps)
        run.optimizer.update(model.params, grads)
        loss = loss + batch_loss * x.shape[-2]
        survived = survived + xp.astype(xp.asarray(xp.isfinite(loss)), xp.int64)
        steps, rows = steps + 1, rows + x.shape[-2]
    values = {"loss": loss / rows}
    if "train" in run.measured:
        values["train_accuracy"] = model.accuracy(*run.measured["train"])
    if "test" in run.measured:
        values["test_loss"], values["test_accuracy"] = model.loss_and_accuracy(*run.measured["test"])
    last = xp.where(xp.asarray(model.finite()), xp.zeros_like(survived), xp.full_like(survived, steps))
    diverged = xp.where(survived < steps, survived + 1, last)
    return Epoch(steps, {name: values[name] for name in run.metrics}, diverged)
