"""The tables of the learning-rate lesson and the paper's figure beside the measured ones, and their claims."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Literal

from bnkit.lab.experiments import QUESTIONS
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
    graded,
    is_published,
    last,
    line,
    lines,
    row,
    where,
)
from bnkit.lab.experiments.learning_rate.settings import PAPER, PUBLISHED, Cell, Settings
from bnkit.lab.experiments.records import Record

SOURCE = "Udacity deep-learning, Batch_Normalization_Lesson.ipynb, one run"
RERUN = "an independent rerun of the paper's network, one run"
TOLERANCE = 0.01  # one run against three: a percent of accuracy is what seeds leave open
EARLY = 2000
PUBLISHED_EARLY = {
    (0.05, 0.01, "relu"): (0.8262, 0.9525),
    (0.05, 1.0, "sigmoid"): (0.9227, 0.9463),
    (0.05, 2.0, "sigmoid"): (0.9360, 0.9524),
}
PUBLISHED_PAPER = {PAPER: (0.9769, 0.980)}
# Another published run of the lesson, by cell and batch norm.
RERUNS = {((5.0, 1.0, "relu"), True): 0.1010, ((5.0, 2.0, "relu"), True): 0.1010}
# The accuracy of a network that names one digit for every image: its share of MNIST's test images.
ONE_DIGIT = (0.0980, 0.1135, 0.1032, 0.1010, 0.0982, 0.0892, 0.0958, 0.1028, 0.0974, 0.1009)
LEARNT = 0.9  # the mean accuracy from which a network has learnt
WIDE = 0.05  # a range of the seeds from which one more run may lie well outside it
ALIKE = 0.005  # accuracies that differ by no more count as the same


def findings(records: list[Record], settings: Settings) -> Findings:
    """The lesson's tables and the paper's figure, and the verdicts on the claims."""
    end = max(r["step"] for r in records)
    lesson = [cell for cell in settings.cells if cell != PAPER]
    tables = [_table(f"test accuracy after {end:,} updates", records, end, lesson, PUBLISHED, SOURCE, settings)]
    if where(records, step=EARLY) and end > EARLY:
        title = f"test accuracy after {EARLY:,} updates"
        tables.append(_table(title, records, EARLY, lesson, PUBLISHED_EARLY, SOURCE, settings))
    if PAPER in settings.cells:
        title = f"the paper's network, test accuracy after {end:,} updates"
        tables.append(_table(title, records, end, [PAPER], PUBLISHED_PAPER, RERUN, settings))
    return Findings(
        QUESTIONS["learning-rate"], _charts(records, settings.cells), tuple(tables), _verdicts(records, settings)
    )


def charts(records: list[Record]) -> tuple[Chart, ...]:
    """Accuracy against updates, a panel a setting, and the percentiles of the paper's figure 1."""
    return _charts(records, list(dict.fromkeys((r["scale"], r["lr"], r["activation"]) for r in records)))


def _charts(records: list[Record], cells: Sequence[Cell]) -> tuple[Chart, ...]:
    panels = []
    for cell in cells:
        of_cell = _of(records, cell)
        panels.append(Panel(_name(cell), lines(of_cell, "step", "accuracy"), diverged_kinds(last(of_cell, "step"))))
    seeds = len({r["seed"] for r in records})
    title = f"Initial scale W and learning rate; mean of {seeds} seeds, the band spans them"
    drawn = [Chart(title, "updates", "test accuracy", tuple(panels), log_x=True, y_range=(0.0, 1.0))]
    if PAPER in cells:
        styles = {"p85": "third", "p50": "fourth", "p15": "fifth"}
        panels = [
            Panel(
                name,
                tuple(line(f"{p[1:]} %", styles[p], _of(records, PAPER, batch_norm=kind), "step", p) for p in styles),
            )
            for kind, name in KINDS.items()
        ]
        title = f"What a unit of the last hidden layer gets as the network learns ({_name(PAPER)}): its percentiles"
        drawn.append(Chart(title, "updates", "input of the sigmoid", tuple(panels), columns=2, log_x=True))
    return tuple(drawn)


def _table(
    title: str,
    records: list[Record],
    step: int,
    cells: Sequence[Cell],
    published: dict[Cell, tuple[float, float]],
    source: str,
    settings: Settings,
) -> Table:
    """Published figures are shown for the lesson's setting only."""
    known = published if is_published(settings) else {}
    rows = []
    for cell in cells:
        if published is PUBLISHED_EARLY and cell not in published:
            continue
        for kind in (False, True):
            course = [r for r in _of(records, cell, batch_norm=kind) if r["step"] <= step]
            reached = where(course, step=step)
            figure = known[cell][kind] if cell in known else None
            notes = [diverged(reached)]
            if figure is not None and step != EARLY and (cell, kind) in RERUNS:
                notes.append(f"a rerun of the lesson gave {RERUNS[cell, kind]:.4f}")
            measured = row(_setting(cell), KINDS[kind], [r["accuracy"] for r in reached], figure)
            if not measured.agrees(TOLERANCE):
                notes += _reasons(course, measured)
            rows.append(dataclasses.replace(measured, note="; ".join(filter(None, notes))))
    return Table(title, ("W", "learning rate", "activation"), tuple(rows), source, TOLERANCE)


def _reasons(course: list[Record], measured: Row) -> list[str]:
    """Why a published figure may lie outside the runs' range, by the records up to then."""
    steps = sorted({r["step"] for r in course})[-2:]
    *before, now = ({r["seed"]: r["accuracy"] for r in course if r["step"] == step} for step in steps)
    if all(round(accuracy, 4) in ONE_DIGIT for accuracy in now.values()):
        return [f"it names one digit for every image, and which is chance: {min(ONE_DIGIT)} to {max(ONE_DIGIT)}"]
    reasons = []
    if before:
        climbs = [now[seed] - before[0][seed] for seed in now]
        if min(climbs) > 0 and max(climbs) > TOLERANCE:
            over = f"in the last {steps[1] - steps[0]:,} updates"
            reasons.append(f"still climbing, by {min(climbs):.3f} to {max(climbs):.3f} {over}")
    if measured.high - measured.low > WIDE:
        reasons.append("the seeds lie far apart, and the published figure is one run's")
    return reasons


def _verdicts(records: list[Record], settings: Settings) -> tuple[Verdict, ...]:
    end = max(r["step"] for r in records)
    early = min((r["step"] for r in records if r["step"] >= min(EARLY, end)), default=end)
    cells = [cell for cell in settings.cells if cell != PAPER] or list(settings.cells)
    at = {
        (cell, kind, step): statistics.fmean(r["accuracy"] for r in _of(records, cell, batch_norm=kind, step=step))
        for cell in cells
        for kind in (False, True)
        for step in (early, end)
    }
    faster = [c for c in cells if at[c, True, early] > at[c, False, early] + ALIKE]
    slower = [c for c in cells if at[c, True, early] < at[c, False, early] - ALIKE]
    rates: dict[tuple[float, str], dict[bool, float]] = {}
    for scale, lr, activation in cells:
        for kind in (False, True):
            learnt = at[(scale, lr, activation), kind, end] >= LEARNT
            largest = rates.setdefault((scale, activation), {False: 0.0, True: 0.0})
            largest[kind] = max(largest[kind], lr if learnt else 0.0)
    larger = [c for c, r in rates.items() if r[True] > r[False]]
    smaller = [c for c, r in rates.items() if r[True] < r[False]]
    better = [c for c in cells if at[c, True, end] > at[c, False, end] + ALIKE]
    worse = [c for c in cells if at[c, True, end] < at[c, False, end] - ALIKE]
    return (
        Verdict(
            "Batch norm makes training faster",
            _by_count(faster, slower),
            f"By mean test accuracy after {early:,} updates: depends where batch norm is ahead in more settings than "
            f"it is behind, holds where it is behind in none of them; no further apart than {ALIKE} is neither.",
            f"Ahead in {len(faster)} of {len(cells)} settings, behind in {_listed(slower)}.",
        ),
        Verdict(
            "Batch norm allows larger learning rates",
            graded(bool(larger) and not smaller, bool(larger)),
            f"By the largest learning rate that reaches a mean test accuracy of {LEARNT}: depends where it is larger "
            "with batch norm for some activation and scale, holds where it is smaller for none.",
            f"Larger for {len(larger)} of {len(rates)} pairs of activation and scale, smaller for {len(smaller)}.",
        ),
        Verdict(
            "Batch norm ends at a better accuracy",
            _by_count(better, worse),
            "By mean test accuracy at the end: depends where batch norm is ahead in more settings than it is behind, "
            f"holds where it is behind in none of them; no further apart than {ALIKE} is neither.",
            f"Ahead in {len(better)} of {len(cells)} settings, behind in {_listed(worse)}.",
        ),
    )


def _by_count(ahead: list[Cell], behind: list[Cell]) -> Literal["holds", "depends", "does not hold"]:
    more = len(ahead) > len(behind)
    return graded(more and not behind, more)


def _of(records: list[Record], cell: Cell, **values: object) -> list[Record]:
    return where(records, scale=cell[0], lr=cell[1], activation=cell[2], **values)


def _setting(cell: Cell) -> tuple[str, str, str]:
    scale, lr, activation = cell
    return f"{scale:g}", f"{lr:g}", activation


def _name(cell: Cell) -> str:
    scale, lr, activation = _setting(cell)
    return f"{activation}, W = {scale}, lr {lr}"


def _listed(cells: list[Cell]) -> str:
    return "; ".join(map(_name, cells)) or "none"
