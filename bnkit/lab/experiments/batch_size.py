"""What do small batches cost batch norm, and do ghost batches or shared statistics help?

A network of two hidden layers sees as many rows at every batch size from 2 to 512, with the learning rate in proportion
to the batch, so that the noise of the gradient stays about the same and what changes is that of the statistics. It is
trained plain and with batch norm; with the largest batch, cut into ghost batches of each smaller size, where the
gradient's noise is the same and that of the statistics not; and by two ranks of half a batch each, which share their
statistics (`reduce=`) or keep to their own. The networks of all seeds train in lockstep as replicas.

Of two rows, batch norm lets through no more than which one has the larger value: that is what it loses there, whatever
the statistics used in inference.

The noise of the statistics is measured on the trained network: over draws of as many rows as the statistics are of, how
far the mean strays in standard deviations, and the variance in variances, of all rows.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnkit.backend import Array
from bnkit.lab.experiments import batch_size_findings, parts, training
from bnkit.lab.experiments.batch_size_findings import GHOST, NORM, OWN, PLAIN, SHARED
from bnkit.lab.experiments.drawing import draw
from bnkit.lab.experiments.findings import Findings
from bnkit.lab.experiments.judging import judged
from bnkit.lab.experiments.parts import Told
from bnkit.lab.experiments.ranks import RANKS, TwoRanks
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.mlp import MLP
from bnkit.reference import quiet
from bnkit.training.optimizers import SGD


@dataclass(frozen=True)
class Settings:
    """What is run. lr: at a batch of lr_batch rows, in proportion at others."""

    data: str = "digits"
    data_dir: str | None = None
    backend: str | None = None
    seeds: int = 3
    epochs: int = 5
    rows: int = 5000
    batches: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512)
    rank_batches: tuple[int, ...] = (4, 16, 64, 256)  # of both ranks together
    hidden: tuple[int, ...] = (100, 100)
    lr: float = 0.1
    lr_batch: int = 128
    draws: int = 50  # of batches, to measure the statistics' noise
    dtype: str = "float32"
    eps: float = 1e-5
    correction: int = 1
    decay: float = 0.9


@dataclass(frozen=True)
class Case:
    """Networks of one kind: `batch` rows an update, whose statistics are each of `counted` rows."""

    kind: str
    batch: int
    counted: int


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=1, rows=min(settings.rows, 1000))


def cases(settings: Settings) -> list[Case]:
    largest = max(settings.batches)
    found = [Case(kind, size, size) for size in settings.batches for kind in (PLAIN, NORM)]
    found += [Case(GHOST, largest, size) for size in settings.batches if size < largest]
    for size in settings.rank_batches:
        found += [Case(SHARED, size, size), Case(OWN, size, size // RANKS)]
    return found


def run(
    settings: Settings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """One record for each case and seed, at the end.

    kind, batch, counted (the rows that each statistic is of), seed, lr, updates, diverged (a logit is not finite);
    train, test: accuracy in inference, by the running statistics; test_anew: by statistics of all training rows;
    mean_noise, var_noise: see above, None where not finite. The last three are None without batch norm.
    on_progress(done, total) counts updates.
    """
    return parts.run(plan, settings, on_progress=on_progress, checkpoint=checkpoint)


def plan(settings: Settings) -> parts.Plan:
    """A case is a part."""
    problem = training.load(settings, settings.batches)
    above = max(settings.correction, 1)
    if len(settings.batches) < 2 or min(settings.batches) <= above:
        raise ValueError(f"batches must be two or more sizes above {above}, got {settings.batches}")
    for size in settings.rank_batches:
        if size not in settings.batches or size % RANKS or size // RANKS <= settings.correction:
            raise ValueError(
                f"rank_batches must be among batches, and even, with more than {settings.correction} rows for each of "
                f"{RANKS} ranks, got {size}"
            )
    pieces = []
    for case in cases(settings):
        updates = max(1, settings.epochs * problem.x.shape[0] // case.batch)
        effort = updates * training.multiplications(problem, case.batch, settings.seeds)
        work = functools.partial(_train, settings, problem, case, updates)
        pieces.append(parts.Part(f"{case.kind} {case.batch} {case.counted}", updates, effort, work))
    return parts.Plan(problem.backend, problem[2:], pieces)


@judged
def findings(records: list[Record], settings: Settings) -> Findings:
    return batch_size_findings.findings(records)


def plot(records: list[Record]) -> Any:
    return draw(batch_size_findings.charts(records))


def _train(settings: Settings, problem: Problem, case: Case, updates: int, told: Told) -> list[Record]:
    """Train the networks of a case, one a seed; their records."""
    seeds = range(settings.seeds)
    norm = {"eps": settings.eps, "correction": settings.correction, "decay": settings.decay}
    if case.kind in (GHOST, OWN):
        norm["ghost"] = case.counted
    model = MLP(
        problem.sizes,
        batch_norm=norm if case.kind != PLAIN else False,
        replicas=len(seeds),
        seed=list(seeds),
        backend=problem.backend,
        dtype=settings.dtype,
    )
    lr = settings.lr * case.batch / settings.lr_batch
    optimizer = SGD(lr=lr)
    batches = training.Batches(problem, seeds, case.batch)
    with contextlib.ExitStack() as stack:
        gradients = stack.enter_context(TwoRanks(model)).gradients if case.kind == SHARED else None
        training.update(model, optimizer, batches.next, range(updates), told, gradients=gradients)
    found = _measured(model, problem, case, settings)
    head = {"kind": case.kind, "batch": case.batch, "counted": case.counted, "lr": lr, "updates": updates}
    return [head | {"seed": seed} | {name: v[i] for name, v in found.items()} for i, seed in enumerate(seeds)]


def _measured(model: MLP, problem: Problem, case: Case, settings: Settings) -> dict[str, list[Any]]:
    x, t, x_test, t_test = problem[2:]
    train, _ = training.measured(model, x, t)
    test, diverged = training.measured(model, x_test, t_test)
    found: dict[str, list[Any]] = {"train": train, "test": test, "diverged": diverged}
    if case.kind == PLAIN:
        return found | {name: [None] * len(test) for name in ("test_anew", "mean_noise", "var_noise")}
    with training.statistics_of(model, x):
        found["test_anew"], _ = training.measured(model, x_test, t_test)
    return found | _noise(model, x, case.counted, settings.draws)


@quiet
def _noise(model: MLP, x: Array, counted: int, draws: int) -> dict[str, list[float | None]]:
    """The root mean square over units, layers and draws of how far the statistics of `counted` rows stray."""
    to_numpy, generator = model.backend.to_numpy, np.random.default_rng(0)  # the same rows for every network
    means, variances = [], []
    for layer in model.network.layers:
        if isinstance(layer, BatchNorm):
            values = to_numpy(x).astype(np.float64)
            mean, var = values.mean(axis=1), values.var(axis=1)
            known = var > 1e-12  # else the unit says the same for every row
            scale, units = np.where(known, var, 1), np.maximum(known.sum(axis=-1), 1)
            for _ in range(draws):
                drawn = values[:, generator.choice(values.shape[1], counted)]
                means.append(np.sum(known * (drawn.mean(axis=1) - mean) ** 2 / scale, axis=-1) / units)
                variances.append(np.sum(known * (drawn.var(axis=1) / scale - 1) ** 2, axis=-1) / units)
        x, _ = layer.forward(x, train=False)
    noises = {"mean_noise": np.sqrt(np.mean(means, axis=0)), "var_noise": np.sqrt(np.mean(variances, axis=0))}
    return {name: [float(v) if np.isfinite(v) else None for v in noise] for name, noise in noises.items()}
