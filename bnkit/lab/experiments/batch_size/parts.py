"""The networks of the batch-size experiment: those of all seeds train in lockstep as replicas."""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnkit.backend import Array
from bnkit.lab.experiments import training
from bnkit.lab.experiments.batch_size.ranks import RANKS, TwoRanks
from bnkit.lab.experiments.batch_size.settings import GHOST, NORM, OWN, PLAIN, SHARED, Settings
from bnkit.lab.experiments.plan import Part, Plan, Session
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.mlp import MLP
from bnkit.reference import quiet
from bnkit.training.optimizers import SGD


@dataclass(frozen=True)
class Case:
    """Networks of one kind: `batch` rows an update, whose statistics are each of `counted` rows."""

    kind: str
    batch: int
    counted: int


def cases(settings: Settings) -> list[Case]:
    largest = max(settings.batches)
    listed = [Case(kind, size, size) for size in settings.batches for kind in (PLAIN, NORM)]
    listed += [Case(GHOST, largest, size) for size in settings.batches if size < largest]
    for size in settings.rank_batches:
        listed += [Case(SHARED, size, size), Case(OWN, size, size // RANKS)]
    return listed


def plan(settings: Settings) -> Plan:
    """A case is a part.

    One record for each case and seed, at the end: kind, batch, counted (the rows of each statistic), seed, lr, updates,
    diverged (a logit is not finite); train, test: accuracy in inference, by the running statistics; test_anew: by
    statistics of all training rows; mean_noise, var_noise: the noise of the statistics, None where not finite. The last
    three are None without batch norm.
    """
    problem = training.load(settings, settings.batches, settings.rows)
    above = max(settings.correction, 1)
    if len(settings.batches) < 2 or min(settings.batches) <= above:
        raise ValueError(f"batches must be two or more sizes above {above}, got {settings.batches}")
    for size in settings.rank_batches:
        if size not in settings.batches or size % RANKS or size // RANKS <= settings.correction:
            raise ValueError(
                f"rank_batches must be among batches, and even, with more than {settings.correction} rows for each of "
                f"{RANKS} ranks, got {size}"
            )
    parts = []
    for case in cases(settings):
        updates = max(1, settings.epochs * problem.x.shape[0] // case.batch)
        effort = updates * training.multiplications(problem, case.batch, settings.seeds)
        work = functools.partial(_train, settings, problem, case, updates)
        parts.append(Part(f"{case.kind} {case.batch} {case.counted}", updates, effort, work))
    return Plan(problem.backend, problem[2:], parts)


def _train(settings: Settings, problem: Problem, case: Case, updates: int, session: Session) -> list[Record]:
    """Train the networks of a case, one a seed; their records."""
    seeds = range(settings.seeds)
    ghost = case.counted if case.kind in (GHOST, OWN) else None
    model = MLP(
        problem.sizes,
        batch_norm=settings.norm(case.kind != PLAIN, ghost=ghost),
        replicas=len(seeds),
        seed=list(seeds),
        backend=problem.backend,
        dtype=settings.dtype,
    )
    lr = settings.lr * case.batch / settings.lr_batch
    batches = training.Batches(problem, seeds, case.batch)

    def measure(updates: int) -> list[Record]:
        measured = _measured(model, problem, case, settings)
        head = {"kind": case.kind, "batch": case.batch, "counted": case.counted, "lr": lr, "updates": updates}
        return [head | {"seed": seed} | {name: v[i] for name, v in measured.items()} for i, seed in enumerate(seeds)]

    with contextlib.ExitStack() as stack:
        gradients = stack.enter_context(TwoRanks(model)).gradients if case.kind == SHARED else None
        update = training.updater(model, SGD(lr=lr), batches.next, gradients=gradients)
        return training.train(training.Course([model], batches.draws), session, update, [updates], measure)


def _measured(model: MLP, problem: Problem, case: Case, settings: Settings) -> dict[str, list[Any]]:
    x, t, x_test, t_test = problem[2:]
    train, _ = training.measured(model, x, t)
    test, diverged = training.measured(model, x_test, t_test)
    values: dict[str, list[Any]] = {"train": train, "test": test, "diverged": diverged}
    if case.kind == PLAIN:
        return values | {name: [None] * len(test) for name in ("test_anew", "mean_noise", "var_noise")}
    with training.statistics_of(model, x):
        values["test_anew"], _ = training.measured(model, x_test, t_test)
    return values | _noise(model, x, case.counted, settings.draws)


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
