"""Does batch norm allow larger learning rates, and so faster learning? Udacity's batch-norm lesson, and the paper.

Three hidden layers of 100 units are trained on MNIST by plain gradient descent, at three learning rates, from good and
from bad initial weights, with ReLU and with sigmoid, each with and without batch norm from the same weights and on the
same batches; and the paper's networks of its figure 1 besides. The networks of one kind and seed are the replicas of
one program; those whose weights are all NaN are left out of it from then on.
"""

import dataclasses
import functools
import itertools
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bnkit.backend import checks
from bnkit.lab.experiments import QUESTIONS, learning_rate_networks, parts, training
from bnkit.lab.experiments.drawing import draw
from bnkit.lab.experiments.findings import (
    KINDS,
    Chart,
    Findings,
    Panel,
    Row,
    Table,
    Verdict,
    diverged,
    diverged_kinds,
    is_published,
    line,
    row,
)
from bnkit.lab.experiments.judging import judged
from bnkit.lab.experiments.records import Record

SOURCE = "Udacity deep-learning, Batch_Normalization_Lesson.ipynb, one run"
RERUN = "an independent rerun of the paper's network, one run"
TOLERANCE = 0.01  # one run against three: a percent of accuracy is what seeds leave open
# Test accuracy by initial scale, learning rate and activation: plain, with batch norm.
PUBLISHED = {
    (0.05, 0.01, "relu"): (0.9748, 0.9803),
    (0.05, 0.01, "sigmoid"): (0.8271, 0.9732),
    (0.05, 1.0, "relu"): (0.0980, 0.9834),
    (0.05, 1.0, "sigmoid"): (0.9752, 0.9812),
    (0.05, 2.0, "relu"): (0.1010, 0.9827),
    (0.05, 2.0, "sigmoid"): (0.9782, 0.9782),
    (5.0, 0.01, "relu"): (0.0980, 0.7990),
    (5.0, 0.01, "sigmoid"): (0.2270, 0.8527),
    (5.0, 1.0, "relu"): (0.1135, 0.9208),
    (5.0, 1.0, "sigmoid"): (0.8957, 0.9505),
    (5.0, 2.0, "relu"): (0.0980, 0.9054),
    (5.0, 2.0, "sigmoid"): (0.9066, 0.9583),
}
EARLY = 2000
PUBLISHED_EARLY = {
    (0.05, 0.01, "relu"): (0.8262, 0.9525),
    (0.05, 1.0, "sigmoid"): (0.9227, 0.9463),
    (0.05, 2.0, "sigmoid"): (0.9360, 0.9524),
}
PAPER = (0.05, 0.5, "sigmoid")
PUBLISHED_PAPER = {PAPER: (0.9769, 0.980)}
# Of another run of the lesson, by others: cell, batch norm.
RERUNS = {((5.0, 1.0, "relu"), True): 0.1010, ((5.0, 2.0, "relu"), True): 0.1010}
# The accuracy of a network that names one digit for every image: its share of MNIST's test images.
ONE_DIGIT = (0.0980, 0.1135, 0.1032, 0.1010, 0.0982, 0.0892, 0.0958, 0.1028, 0.0974, 0.1009)
LEARNT = 0.9  # the mean accuracy from which a network has learnt
APART = 0.05  # a range of the seeds from which one run more may lie well outside it
ALIKE = 0.005  # accuracies that are no further apart count as the same


@dataclass(frozen=True)
class Settings:
    """What is run; the defaults are the lesson's, but for the dataset and the number of seeds.

    cells: initial scale, learning rate and activation of each network. epochs: passes over the training images, each
    of as many updates as there are whole batches. measured: after how many updates, as far as there are so many.
    """

    data: str = "digits"
    data_dir: str | None = None
    backend: str | None = None
    seeds: int = 3
    epochs: int = 50
    cells: tuple[tuple[float, float, str], ...] = (*PUBLISHED, PAPER)
    hidden: tuple[int, ...] = (100, 100, 100)
    batch_size: int = 60
    decay: float = 0.99
    eps: float = 1e-3
    correction: int = 0
    dtype: str = "float32"
    measured: tuple[int, ...] = (
        *(100, 200, 500, 1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 14_000),
        *range(20_000, 50_001, 6_000),
    )
    percentile_rows: int = 1_000


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=1, measured=(100, 300))


def run(
    settings: Settings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """One record for each seed, network and number of updates that is measured, and for the last.

    scale, lr, activation, batch_norm, seed, step, accuracy (on the test images, in inference), diverged (a logit is not
    finite), and p15, p50 and p85: percentiles of what the first unit of the last hidden layer gets, over the first test
    images. on_progress(done, total) counts updates, of all networks of one activation, kind and seed together.
    """
    return parts.run(plan, settings, on_progress=on_progress, checkpoint=checkpoint)


def plan(settings: Settings) -> parts.Plan:
    """The networks of an activation, kind and seed are a part."""
    problem = training.load(settings, [settings.batch_size])
    for cell in settings.cells:
        if len(cell) != 3:
            raise ValueError(f"cells must each be an initial scale, a learning rate and an activation, got {cell!r}")
        checks.check_choice("activation", cell[2], ("relu", "sigmoid", "tanh"))
    updates = settings.epochs * (problem.x.shape[0] // settings.batch_size)
    names = [activation for _, _, activation in settings.cells]
    pieces = []
    for seed, (kind, name), activation in itertools.product(range(settings.seeds), KINDS.items(), dict.fromkeys(names)):
        effort = updates * training.multiplications(problem, settings.batch_size, names.count(activation))
        if activation == "relu" and not kind:
            effort //= 2  # about: most of them become NaN, and are left out
        work = functools.partial(learning_rate_networks.train, settings, updates, problem, activation, kind, seed)
        pieces.append(parts.Part(f"seed {seed}, {activation}, {name}", updates, effort, work))
    return parts.Plan(problem.backend, problem[2:], pieces)


@judged
def findings(records: list[Record], settings: Settings) -> Findings:
    """The lesson's tables and the paper's figure, and what they say of the claim."""
    last = max(r["step"] for r in records)
    lesson = [cell for cell in settings.cells if cell != PAPER]
    tables = [_table(f"test accuracy after {last:,} updates", records, last, lesson, PUBLISHED, SOURCE, settings)]
    if any(r["step"] == EARLY for r in records) and last > EARLY:
        title = f"test accuracy after {EARLY:,} updates"
        tables.append(_table(title, records, EARLY, lesson, PUBLISHED_EARLY, SOURCE, settings))
    if PAPER in settings.cells:
        title = f"the paper's network, test accuracy after {last:,} updates"
        tables.append(_table(title, records, last, [PAPER], PUBLISHED_PAPER, RERUN, settings))
    return Findings(QUESTIONS["learning-rate"], charts(records, settings), tuple(tables), _verdicts(records, settings))


def charts(records: list[Record], settings: Settings) -> tuple[Chart, ...]:
    """Accuracy against updates, a panel a setting, and the percentiles of the paper's figure 1."""
    panels, last = [], max(r["step"] for r in records)
    for cell in settings.cells:
        both = {kind: _of(records, cell, kind) for kind in (True, False)}
        lines = tuple(line(KINDS[kind], KINDS[kind], own, "step", "accuracy") for kind, own in both.items())
        at_end = [r for own in both.values() for r in own if r["step"] == last]
        panels.append(Panel(_name(cell), lines, diverged_kinds(at_end)))
    seeds = len({r["seed"] for r in records})
    title = f"Initial scale W and learning rate; mean of {seeds} seeds, the band spans them"
    found = [Chart(title, "updates", "test accuracy", tuple(panels), log_x=True, y_range=(0.0, 1.0))]
    if PAPER in settings.cells:
        styles = {"p85": "third", "p50": "fourth", "p15": "fifth"}
        panels = [
            Panel(name, tuple(line(f"{p[1:]} %", styles[p], _of(records, PAPER, kind), "step", p) for p in styles))
            for kind, name in KINDS.items()
        ]
        title = f"What a unit of the last hidden layer gets as the network learns ({_name(PAPER)}): its percentiles"
        found.append(Chart(title, "updates", "input of the sigmoid", tuple(panels), columns=2, log_x=True))
    return tuple(found)


def plot(records: list[Record]) -> Any:
    cells = tuple(dict.fromkeys((r["scale"], r["lr"], r["activation"]) for r in records))
    return draw(charts(records, Settings(cells=cells)))


def _table(
    title: str,
    records: list[Record],
    step: int,
    cells: Any,
    published: dict[tuple[float, float, str], tuple[float, float]],
    source: str,
    settings: Settings,
) -> Table:
    """published figures stand beside the lesson's own setting only."""
    shown = published if is_published(settings) else {}
    rows = []
    for cell in cells:
        if published is PUBLISHED_EARLY and cell not in published:
            continue
        for kind in (False, True):
            course = [r for r in _of(records, cell, kind) if r["step"] <= step]
            own = [r for r in course if r["step"] == step]
            figure = shown[cell][kind] if cell in shown else None
            notes = [diverged(own)]
            if figure is not None and step != EARLY and (cell, kind) in RERUNS:
                notes.append(f"a rerun of the lesson gave {RERUNS[cell, kind]:.4f}")
            found = row(_setting(cell), KINDS[kind], [r["accuracy"] for r in own], figure)
            if not found.agrees(TOLERANCE):
                notes += _reasons(course, found)
            rows.append(dataclasses.replace(found, note="; ".join(filter(None, notes))))
    return Table(title, ("W", "learning rate", "activation"), tuple(rows), source, TOLERANCE)


def _reasons(course: list[Record], found: Row) -> list[str]:
    """Why a published figure may lie outside the runs' range, as far as their records up to then tell."""
    steps = sorted({r["step"] for r in course})[-2:]
    *before, last = ({r["seed"]: r["accuracy"] for r in course if r["step"] == step} for step in steps)
    if all(round(accuracy, 4) in ONE_DIGIT for accuracy in last.values()):
        return [f"it names one digit for every image, and which is chance: {min(ONE_DIGIT)} to {max(ONE_DIGIT)}"]
    reasons = []
    if before:
        climbs = [last[seed] - before[0][seed] for seed in last]
        if min(climbs) > 0 and max(climbs) > TOLERANCE:
            over = f"in the last {steps[1] - steps[0]:,} updates"
            reasons.append(f"still climbing, by {min(climbs):.3f} to {max(climbs):.3f} {over}")
    if found.high - found.low > APART:
        reasons.append("the seeds lie far apart, and the published figure is one run's")
    return reasons


def _verdicts(records: list[Record], settings: Settings) -> tuple[Verdict, ...]:
    last = max(r["step"] for r in records)
    early = min((r["step"] for r in records if r["step"] >= min(EARLY, last)), default=last)
    cells = [cell for cell in settings.cells if cell != PAPER] or list(settings.cells)
    at = {
        (cell, kind, step): _mean(records, cell, kind, step)
        for cell in cells
        for kind in (False, True)
        for step in (early, last)
    }
    faster = [c for c in cells if at[c, True, early] > at[c, False, early] + ALIKE]
    slower = [c for c in cells if at[c, True, early] < at[c, False, early] - ALIKE]
    rates: dict[tuple[float, str], dict[bool, float]] = {}
    for scale, lr, activation in cells:
        for kind in (False, True):
            learnt = at[(scale, lr, activation), kind, last] >= LEARNT
            largest = rates.setdefault((scale, activation), {False: 0.0, True: 0.0})
            largest[kind] = max(largest[kind], lr if learnt else 0.0)
    larger = [c for c, r in rates.items() if r[True] > r[False]]
    smaller = [c for c, r in rates.items() if r[True] < r[False]]
    better = [c for c in cells if at[c, True, last] > at[c, False, last] + ALIKE]
    worse = [c for c in cells if at[c, True, last] < at[c, False, last] - ALIKE]
    return (
        Verdict(
            "Batch norm makes training faster",
            "does not hold" if len(faster) <= len(slower) else "depends" if slower else "holds",
            f"By mean test accuracy after {early:,} updates: depends where batch norm is ahead in more settings than "
            f"it is behind, holds where it is behind in none of them; no further apart than {ALIKE} is neither.",
            f"Ahead in {len(faster)} of {len(cells)} settings, behind in {_listed(slower)}.",
        ),
        Verdict(
            "Batch norm allows larger learning rates",
            "depends" if larger and smaller else "holds" if larger else "does not hold",
            f"By the largest learning rate that reaches a mean test accuracy of {LEARNT}: depends where it is larger "
            "with batch norm for some activation and scale, holds where it is smaller for none.",
            f"Larger for {len(larger)} of {len(rates)} pairs of activation and scale, smaller for {len(smaller)}.",
        ),
        Verdict(
            "Batch norm ends at a better accuracy",
            "does not hold" if len(better) <= len(worse) else "depends" if worse else "holds",
            "By mean test accuracy at the end: depends where batch norm is ahead in more settings than it is behind, "
            f"holds where it is behind in none of them; no further apart than {ALIKE} is neither.",
            f"Ahead in {len(better)} of {len(cells)} settings, behind in {_listed(worse)}.",
        ),
    )


def _of(records: list[Record], cell: tuple[float, float, str], kind: bool) -> list[Record]:
    return [r for r in records if (r["scale"], r["lr"], r["activation"], r["batch_norm"]) == (*cell, kind)]


def _mean(records: list[Record], cell: tuple[float, float, str], kind: bool, step: int) -> float:
    return statistics.fmean(r["accuracy"] for r in _of(records, cell, kind) if r["step"] == step)


def _setting(cell: tuple[float, float, str]) -> tuple[str, str, str]:
    scale, lr, activation = cell
    return f"{scale:g}", f"{lr:g}", activation


def _name(cell: tuple[float, float, str]) -> str:
    scale, lr, activation = _setting(cell)
    return f"{activation}, W = {scale}, lr {lr}"


def _listed(cells: list[tuple[float, float, str]]) -> str:
    return "; ".join(map(_name, cells)) or "none"
