"""Does batch norm suppress overfitting? The tutorial's demonstrations of it, with batch norm among them.

Six hidden layers of 100 ReLU units learn 300 images by heart: plain, with dropout, with weight decay, with batch norm.
The networks of one kind train in lockstep as replicas, one for each seed and learning rate.

Batch norm's share is taken apart. The error of the running statistics: test accuracy with statistics estimated anew
over all 300 images, or from one batch. The noise of the batch's statistics: networks that take them from all 300 images
at each update, for the gradient of the same batch. And a grid of learning rates, initial weights and batch sizes shows
where the claim may hold.

The tutorial's dropout does not divide by the share that it keeps, in training, but multiplies by it in inference; under
bnkit's, its dropout alone would learn far faster than published. `training.tutorial_dropout` makes up for that.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit.lab.experiments import overfitting_findings, parts, training
from bnkit.lab.experiments.drawing import draw
from bnkit.lab.experiments.findings import Findings, is_published
from bnkit.lab.experiments.judging import judged
from bnkit.lab.experiments.parts import Told
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.mlp import MLP
from bnkit.training.optimizers import SGD


@dataclass(frozen=True)
class Settings:
    """What is run; the defaults are the tutorial's, but for the dataset. `epochs` counts those of 100 from 300 rows."""

    data: str = "digits"
    data_dir: str | None = None
    backend: str | None = None
    seeds: int = 3
    epochs: int = 301
    decay_epochs: int = 201  # with weight decay, at most `epochs`
    every: int = 20  # epochs from one measurement to the next
    rows: int = 300
    batch_size: int = 100
    hidden: tuple[int, ...] = (100,) * 6
    init: str = "he"
    lr: float = 0.01
    high_lr: float = 0.1
    dropout: float = 0.2
    weight_decay: float = 0.1
    # 0.2 came later, when the others had shown no setting in which the claim holds: the search has looked for one.
    search_inits: tuple[str | float, ...] = ("he", 0.02, 0.2)
    search_lrs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    search_batches: tuple[int, ...] = (100, 20)
    dtype: str = "float32"
    eps: float = 1e-6
    correction: int = 0
    decay: float = 0.9
    initial_running_var: float = 0.0


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


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(
        settings,
        seeds=1,
        epochs=min(settings.epochs, 21),
        search_inits=settings.search_inits[:1],
        search_batches=settings.search_batches[:1],
    )


def groups(settings: Settings) -> list[Group]:
    """What is trained: the published cases, batch norm without noise, and the search with and without batch norm."""
    s, names = settings, overfitting_findings
    same: dict[str, Any] = {"batch_size": s.batch_size, "epochs": s.epochs}

    def case(name: str, lr: float = s.lr) -> tuple[str, str | float, float]:
        return name, s.init, lr

    found = [
        Group("plain", (case(names.PLAIN),), False, **same),
        Group("dropout", (case(names.DROPOUT),), False, dropout=s.dropout, **same),
        Group(
            "decay",
            (case(names.DECAY),),
            False,
            s.batch_size,
            min(s.decay_epochs, s.epochs),
            weight_decay=s.weight_decay,
        ),
        Group("norm", (case(names.NORM), case(names.NORM_HIGH, s.high_lr)), True, **same),
        Group("norm dropout", (case(names.NORM_DROPOUT),), True, dropout=s.dropout, **same),
        Group("all rows", (case(names.ALL), case(names.ALL_HIGH, s.high_lr)), True, all_rows=True, **same),
    ]
    cells = tuple(("search", init, lr) for init in s.search_inits for lr in s.search_lrs)
    for size in s.search_batches:
        epochs = max(1, s.epochs * size // s.batch_size)  # as many updates
        found += [Group(f"search {size} {kind}", cells, kind, size, epochs, search=True) for kind in (False, True)]
    return found


def updates(group: Group, rows: int) -> int:
    """The tutorial's loop ends after the first update of the last epoch."""
    return (group.epochs - 1) * max(rows // group.batch_size, 1) + 1


def run(
    settings: Settings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """One record for each case, seed and measurement.

    search, case, batch_norm, init, lr, batch_size, seed, epoch, updates, diverged (a logit is not finite);
    train, test: accuracy in inference, by the running statistics; test_anew, test_one_batch: by statistics of all
    training rows, and of one batch of them, None without batch norm. on_progress(done, total) counts updates.
    """
    return parts.run(plan, settings, on_progress=on_progress, checkpoint=checkpoint)


def plan(settings: Settings) -> parts.Plan:
    """A group is a part."""
    problem = training.load(settings, [settings.batch_size, *settings.search_batches])
    rows = problem.x.shape[0]
    pieces = []
    for g in groups(settings):
        n, networks = updates(g, rows), len(g.cases) * settings.seeds
        effort = n * training.multiplications(problem, rows if g.all_rows else g.batch_size, networks)
        pieces.append(parts.Part(g.name, n, effort, functools.partial(_train, settings, problem, g)))
    return parts.Plan(problem.backend, problem[2:], pieces)


@judged
def findings(records: list[Record], settings: Settings) -> Findings:
    return overfitting_findings.findings(records, published=is_published(settings))


def plot(records: list[Record]) -> Any:
    return draw(overfitting_findings.charts(records))


class _Replica(NamedTuple):
    case: str
    init: str | float
    lr: float
    seed: int


def _train(settings: Settings, problem: Problem, group: Group, told: Told) -> list[Record]:
    """Train a group; the records of each measurement."""
    replicas = [_Replica(*case, seed) for case in group.cases for seed in range(settings.seeds)]
    model, factors = _networks(settings, problem, group, replicas)
    optimizer = SGD(lr=[r.lr for r in replicas])
    batches = training.Batches(problem, [r.seed for r in replicas], group.batch_size)
    source = functools.partial(batches.all_rows, problem.sizes[-1]) if group.all_rows else batches.next
    every = max(problem.x.shape[0] // group.batch_size, 1)
    epochs = range(1, group.epochs, settings.every) if not group.search else ()
    records: list[Record] = []
    done = 0
    for epoch in (*epochs, group.epochs):
        first, done = done, (epoch - 1) * every + 1
        training.update(model, optimizer, source, range(first, done), told, factors=factors)
        records += _records(model, problem, group, replicas, epoch, done)
    return records


def _networks(
    settings: Settings, problem: Problem, group: Group, replicas: list[_Replica]
) -> tuple[MLP, dict[str, float]]:
    """The networks, and the factors of their gradients that make dropout the tutorial's."""
    norm = {"eps": settings.eps, "correction": settings.correction, "decay": settings.decay}
    model = MLP(
        problem.sizes,
        batch_norm=norm if group.batch_norm else False,
        init=[r.init for r in replicas],
        dropout=group.dropout,
        weight_decay=group.weight_decay,
        replicas=len(replicas),
        seed=[r.seed for r in replicas],
        backend=problem.backend,
        dtype=settings.dtype,
    )
    for name, array in model.state.items():
        if name.endswith("running_var"):
            array[...] = settings.initial_running_var
    return model, training.tutorial_dropout(model, group.dropout) if group.dropout else {}


def _records(
    model: MLP, problem: Problem, group: Group, replicas: list[_Replica], epoch: int, done: int
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
            "updates": done,
            "train": train[i],
            "test": test[i],
            "test_anew": anew[i],
            "test_one_batch": one[i],
            "diverged": diverged[i],
        }
        for i, replica in enumerate(replicas)
    ]
