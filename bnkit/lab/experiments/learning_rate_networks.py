"""The networks of the learning-rate experiment: those of one activation, kind and seed train in lockstep."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from bnkit.backend import Array
from bnkit.lab.experiments import training
from bnkit.lab.experiments.parts import Told
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.init import generator
from bnkit.nn.mlp import MLP
from bnkit.nn.sequential import Sequential
from bnkit.training.optimizers import SGD

PERCENTILES = (15, 50, 85)
LOOKED = 100  # updates from one look for networks of NaN to the next
CELL = ("scale", "lr", "activation")  # in a record; the initial scale, and the learning rate
Cell = tuple[float, float, str]


def train(
    settings: Any, updates: int, problem: Problem, activation: str, batch_norm: bool, seed: int, told: Told
) -> list[Record]:
    """The records of the settings' networks of one activation and kind, from one seed.

    Networks whose last weights are all NaN, which no update changes any more, are left out from then on.
    """
    live = cells = [cell for cell in settings.cells if cell[2] == activation]
    networks = functools.partial(_networks, settings, problem, batch_norm=batch_norm, seed=seed)
    model = networks(cells)
    batches = _batches(problem, seed, settings.batch_size)
    measured, dead = {n for n in settings.measured if n < updates} | {updates}, _of_nan(problem)
    records: list[Record] = []
    for done, step in itertools.pairwise(sorted(measured.union(range(0, updates, LOOKED)))):
        if model is not None:
            optimizer = SGD(lr=[lr for _, lr, _ in live])
            training.update(model, optimizer, functools.partial(next, batches), range(done, step), told)
            alive = _alive(model)
            if not alive.all():
                arrays = model.arrays()
                live = [cell for cell, ok in zip(live, alive, strict=True) if ok]
                model = networks(live)
                if model is not None:
                    kept = {name: a[alive] if a.ndim else a for name, a in arrays.items()}
                    model.set_arrays(kept, source="the networks before")
        if step not in measured:
            continue
        found = (
            {} if model is None else dict(zip(live, _measured(model, problem, settings.percentile_rows), strict=True))
        )
        head = {"batch_norm": batch_norm, "seed": seed, "step": step}
        records += [dict(zip(CELL, cell, strict=True)) | head | found.get(cell, dead) for cell in cells]
    return records


def _networks(settings: Any, problem: Problem, cells: list[Cell], *, batch_norm: bool, seed: int) -> MLP | None:
    """One network a cell, of which there may be none."""
    if not cells:
        return None
    norm = {"decay": settings.decay, "eps": settings.eps, "correction": settings.correction}
    return MLP(
        problem.sizes,
        batch_norm=norm if batch_norm else False,
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


def _batches(problem: Problem, seed: int, batch_size: int) -> Iterator[tuple[Array, Array]]:
    """For each update, without an end; an epoch leaves out the rows that do not fill a batch."""
    rows, take = problem.x.shape[0], problem.backend.xp.take
    epoch = 0
    while True:
        order = generator("order", seed, epoch).permutation(rows)
        for first in range(0, rows - batch_size + 1, batch_size):
            chosen = problem.backend.asarray(order[first : first + batch_size])
            yield take(problem.x, chosen, axis=0), take(problem.t, chosen, axis=0)
        epoch += 1


def _measured(model: MLP, problem: Problem, percentile_rows: int) -> list[Record]:
    """What a record holds of each network."""
    accuracies, diverged = training.measured(model, problem.x_test, problem.t_test)
    before = Sequential(*model.network.layers[:-2])  # all but the last activation and the last Linear
    x = model.prepare_input(problem.x_test[:percentile_rows, ...])
    inputs = model.backend.to_numpy(before.forward(x, train=False)[0])[..., 0]
    return [
        {"accuracy": accuracy, "diverged": bad, **{f"p{p}": _percentile(own, p) for p in PERCENTILES}}
        for accuracy, bad, own in zip(accuracies, diverged, inputs, strict=True)
    ]


def _of_nan(problem: Problem) -> Record:
    """The same of a network of NaN."""
    xp = problem.backend.xp
    first = xp.mean(xp.astype(problem.t_test == 0, xp.float64))  # the largest of logits that are all NaN
    return {"accuracy": float(first), "diverged": True, **{f"p{p}": None for p in PERCENTILES}}


def _percentile(values: np.ndarray, percent: int) -> float | None:
    return float(np.percentile(values, percent)) if np.isfinite(values).all() else None
