"""The networks of the learning-rate experiment: those of one activation, kind and seed train in lockstep."""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from bnkit.lab.experiments import training
from bnkit.lab.experiments.findings import KINDS
from bnkit.lab.experiments.learning_rate.settings import Cell, Settings
from bnkit.lab.experiments.plan import Part, Plan, Session
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.init import generator
from bnkit.nn.mlp import MLP
from bnkit.nn.sequential import Sequential
from bnkit.training.optimizers import SGD

PERCENTILES = (15, 50, 85)
LOOKED = 100  # updates from one look for networks of NaN to the next
CELL = ("scale", "lr", "activation")  # in a record; the initial scale, and the learning rate


def plan(settings: Settings) -> Plan:
    """The networks of an activation, kind and seed are a part.

    One record for each seed, network and number of updates that is measured, and for the last: scale, lr, activation,
    batch_norm, seed, step, accuracy (on the test images, in inference), diverged (a logit is not finite), and p15, p50
    and p85: percentiles of the input of the last hidden layer's first unit, over the first test images.
    """
    problem = training.load(settings, [settings.batch_size])
    updates = settings.epochs * (problem.x.shape[0] // settings.batch_size)
    names = [activation for _, _, activation in settings.cells]
    parts = []
    for seed, (kind, name), activation in itertools.product(range(settings.seeds), KINDS.items(), dict.fromkeys(names)):
        effort = updates * training.multiplications(problem, settings.batch_size, names.count(activation))
        if activation == "relu" and not kind:
            effort //= 2  # about: most of them become NaN, and are left out
        work = functools.partial(train, settings, updates, problem, activation, kind, seed)
        parts.append(Part(f"seed {seed}, {activation}, {name}", updates, effort, work))
    return Plan(problem.backend, problem[2:], parts)


def train(
    settings: Settings,
    updates: int,
    problem: Problem,
    activation: str,
    batch_norm: bool,
    seed: int,
    session: Session,
) -> list[Record]:
    """The records of the settings' networks of one activation and kind, from one seed."""
    cells = [cell for cell in settings.cells if cell[2] == activation]
    course = _Course(settings, problem, cells, batch_norm, seed)
    measured, dead = {n for n in settings.measured if n < updates} | {updates}, _of_nan(problem)
    rows, take = problem.x.shape[0], problem.backend.xp.take
    each = rows // settings.batch_size  # an epoch leaves out the rows that do not fill a batch

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return generator("order", seed, epoch).permutation(rows)

    def update(step: int) -> None:
        first = step % each * settings.batch_size
        chosen = problem.backend.asarray(order(step // each)[first : first + settings.batch_size])
        for model in course.models:
            x, t = take(problem.x, chosen, axis=0), take(problem.t, chosen, axis=0)
            course.optimizer.update(model.params, model.prepared_loss_and_grads(x, t, step=step)[1])

    def measure(step: int) -> list[Record]:
        course.leave_out_dead()
        if step not in measured:
            return []
        of_live = [_measured(model, problem, settings.percentile_rows) for model in course.models]
        live = dict(zip(course.live, itertools.chain(*of_live), strict=True))
        head = {"batch_norm": batch_norm, "seed": seed, "step": step}
        return [dict(zip(CELL, cell, strict=True)) | head | live.get(cell, dead) for cell in cells]

    stops = sorted(measured.union(range(LOOKED, updates, LOOKED)))
    return training.train(course, session, update, stops, measure)


class _Course(training.Course):
    """The networks whose last weights are not all NaN; no update changes the others any more."""

    def __init__(self, settings: Settings, problem: Problem, cells: list[Cell], batch_norm: bool, seed: int) -> None:
        self._cells = cells
        self._networks = functools.partial(_networks, settings, problem, batch_norm=batch_norm, seed=seed)
        super().__init__([])
        self._begin(cells)

    def notes(self) -> dict[str, Any]:
        return {"live": [self._cells.index(cell) for cell in self.live]}

    def rebuild(self, notes: Mapping[str, Any]) -> None:
        self._begin([self._cells[i] for i in notes["live"]])

    def leave_out_dead(self) -> None:
        for model in self.models:
            alive = _alive(model)
            if alive.all():
                continue
            arrays = model.arrays()
            self._begin([cell for cell, ok in zip(self.live, alive, strict=True) if ok])
            for smaller in self.models:
                kept = {name: a[alive] if a.ndim else a for name, a in arrays.items()}
                smaller.set_arrays(kept, source="the networks before")

    def _begin(self, live: list[Cell]) -> None:
        model = self._networks(live)
        self.live, self.models = live, [] if model is None else [model]
        self.optimizer = SGD(lr=[lr for _, lr, _ in live] or 1.0)


def _networks(settings: Settings, problem: Problem, cells: list[Cell], *, batch_norm: bool, seed: int) -> MLP | None:
    """One network a cell, of which there may be none."""
    if not cells:
        return None
    return MLP(
        problem.sizes,
        batch_norm=settings.norm(batch_norm),
        activation=cells[0][2],
        bias=not batch_norm,
        init=[scale for scale, _, _ in cells],
        replicas=len(cells),
        seed=seed,
        backend=problem.backend,
        dtype=settings.dtype,
    )


def _alive(model: MLP) -> np.ndarray:
    """Which networks have a last weight that is a number."""
    last = model.backend.to_numpy(model.params[f"{len(model.network.layers) - 1}.weight"])
    alive: np.ndarray = ~np.isnan(last).all(axis=(1, 2))
    return alive


def _measured(model: MLP, problem: Problem, percentile_rows: int) -> list[Record]:
    """What a record holds of each network."""
    accuracies, diverged = training.measured(model, problem.x_test, problem.t_test)
    before = Sequential(*model.network.layers[:-2])  # all but the last activation and the last Linear
    x = model.prepare_input(problem.x_test[:percentile_rows, ...])
    inputs = model.backend.to_numpy(before.forward(x, train=False)[0])[..., 0]
    return [
        {"accuracy": accuracy, "diverged": bad, **{f"p{p}": _percentile(values, p) for p in PERCENTILES}}
        for accuracy, bad, values in zip(accuracies, diverged, inputs, strict=True)
    ]


def _of_nan(problem: Problem) -> Record:
    """The same of a network of NaN."""
    xp = problem.backend.xp
    first = xp.mean(xp.astype(problem.t_test == 0, xp.float64))  # the largest of logits that are all NaN
    return {"accuracy": float(first), "diverged": True, **{f"p{p}": None for p in PERCENTILES}}


def _percentile(values: np.ndarray, percent: int) -> float | None:
    return float(np.percentile(values, percent)) if np.isfinite(values).all() else None
