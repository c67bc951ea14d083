"""The networks of the overfitting experiment: those of one group train in lockstep, one for each case and seed."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit.lab.experiments import training
from bnkit.lab.experiments.overfitting.settings import (
    ALL,
    ALL_HIGH,
    DECAY,
    DROPOUT,
    NORM,
    NORM_DROPOUT,
    NORM_HIGH,
    PLAIN,
    Settings,
)
from bnkit.lab.experiments.plan import Part, Plan, Session
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.mlp import MLP
from bnkit.training.optimizers import SGD


@dataclass(frozen=True)
class Group:
    """Networks of one shape, for each case (its name, initial weights, learning rate) and seed."""

    name: str
    cases: tuple[tuple[str, str | float, float], ...]
    batch_norm: bool
    batch_size: int
    epochs: int
    dropout: float = 0.0
    weight_decay: float = 0.0
    all_rows: bool = False  # batch norm takes its statistics from all the rows
    search: bool = False  # measured at the end alone


def groups(settings: Settings) -> list[Group]:
    """The published cases, batch norm without noise, and the search with and without batch norm."""
    s = settings
    same: dict[str, Any] = {"batch_size": s.batch_size, "epochs": s.epochs}

    def case(name: str, lr: float = s.lr) -> tuple[str, str | float, float]:
        return name, s.init, lr

    listed = [
        Group("plain", (case(PLAIN),), False, **same),
        Group("dropout", (case(DROPOUT),), False, dropout=s.dropout, **same),
        Group(
            "decay",
            (case(DECAY),),
            False,
            s.batch_size,
            min(s.decay_epochs, s.epochs),
            weight_decay=s.weight_decay,
        ),
        Group("norm", (case(NORM), case(NORM_HIGH, s.high_lr)), True, **same),
        Group("norm dropout", (case(NORM_DROPOUT),), True, dropout=s.dropout, **same),
        Group("all rows", (case(ALL), case(ALL_HIGH, s.high_lr)), True, all_rows=True, **same),
    ]
    cells = tuple(("search", init, lr) for init in s.search_inits for lr in s.search_lrs)
    for size in s.search_batches:
        epochs = max(1, s.epochs * size // s.batch_size)  # as many updates
        listed += [Group(f"search {size} {kind}", cells, kind, size, epochs, search=True) for kind in (False, True)]
    return listed


def updates(group: Group, rows: int) -> int:
    """The tutorial's loop ends after the first update of the last epoch."""
    return (group.epochs - 1) * max(rows // group.batch_size, 1) + 1


def plan(settings: Settings) -> Plan:
    """A group is a part.

    One record for each case, seed and measurement: search, case, batch_norm, init, lr, batch_size, seed, epoch,
    updates, diverged (a logit is not finite); train, test: accuracy in inference, by the running statistics; test_anew,
    test_one_batch: by statistics of all training rows, and of one batch of them, None without batch norm.
    """
    problem = training.load(settings, [settings.batch_size, *settings.search_batches], settings.rows)
    rows = problem.x.shape[0]
    parts = []
    for g in groups(settings):
        n, networks = updates(g, rows), len(g.cases) * settings.seeds
        effort = n * training.multiplications(problem, rows if g.all_rows else g.batch_size, networks)
        parts.append(Part(g.name, n, effort, functools.partial(_train, settings, problem, g)))
    return Plan(problem.backend, problem[2:], parts)


class _Replica(NamedTuple):
    case: str
    init: str | float
    lr: float
    seed: int


def _train(settings: Settings, problem: Problem, group: Group, session: Session) -> list[Record]:
    """Train a group; the records of each measurement."""
    replicas = [_Replica(*case, seed) for case in group.cases for seed in range(settings.seeds)]
    model, factors = _networks(settings, problem, group, replicas)
    batches = training.Batches(problem, [r.seed for r in replicas], group.batch_size)
    source = functools.partial(batches.all_rows, problem.sizes[-1]) if group.all_rows else batches.next
    every = max(problem.x.shape[0] // group.batch_size, 1)
    epochs = range(1, group.epochs, settings.every) if not group.search else ()
    stops = {(epoch - 1) * every + 1: epoch for epoch in (*epochs, group.epochs)}

    def measure(updates: int) -> list[Record]:
        return _records(model, problem, group, replicas, stops[updates], updates)

    update = training.updater(model, SGD(lr=[r.lr for r in replicas]), source, factors=factors)
    return training.train(training.Course([model], batches.draws), session, update, stops, measure)


def _networks(
    settings: Settings, problem: Problem, group: Group, replicas: list[_Replica]
) -> tuple[MLP, dict[str, float]]:
    """The networks, and the factors of their gradients that make dropout the tutorial's."""
    model = MLP(
        problem.sizes,
        batch_norm=settings.norm(group.batch_norm),
        init=[r.init for r in replicas],
        dropout=group.dropout,
        weight_decay=group.weight_decay,
        replicas=len(replicas),
        seed=[r.seed for r in replicas],
        backend=problem.backend,
        dtype=settings.dtype,
    )
    training.set_running_var(model, settings.initial_running_var)
    return model, training.tutorial_dropout(model, group.dropout) if group.dropout else {}


def _records(
    model: MLP, problem: Problem, group: Group, replicas: list[_Replica], epoch: int, updates: int
) -> list[Record]:
    x, t, x_test, t_test = problem[2:]
    train, _ = training.measured(model, x, t)
    test, diverged = training.measured(model, x_test, t_test)
    anew: list[Any] = [None] * len(replicas)
    one: list[Any] = anew
    if group.batch_norm:
        with training.statistics_of(model, x):
            anew, _ = training.measured(model, x_test, t_test)
        # The first rows, which are in no order: a draw would change the batches that follow.
        with training.statistics_of(model, x[: group.batch_size, ...]):
            one, _ = training.measured(model, x_test, t_test)
    return [
        {
            "search": group.search,
            **replica._asdict(),
            "batch_norm": group.batch_norm,
            "batch_size": group.batch_size,
            "epoch": epoch,
            "updates": updates,
            "train": train[i],
            "test": test[i],
            "test_anew": anew[i],
            "test_one_batch": one[i],
            "diverged": diverged[i],
        }
        for i, replica in enumerate(replicas)
    ]
