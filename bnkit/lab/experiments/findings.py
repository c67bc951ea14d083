"""What an experiment shows: charts to draw, numbers beside published ones, and a verdict on the claim."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.settings import Settings

# Okabe & Ito's colours, which colour-blind readers can distinguish; the dashes serve everyone else. A style has the
# name of what it shows, so that a series looks the same in every chart. The dashes are lengths of strokes and gaps in
# line widths, none for a solid line.
STYLES: dict[str, tuple[str, tuple[float, ...]]] = {
    "batch norm": ("#0072B2", ()),
    "plain": ("#D55E00", (4, 2)),
    "third": ("#009E73", (6, 2, 1, 2)),
    "fourth": ("#CC79A7", (1, 1.5)),
    "fifth": ("#E69F00", (8, 2)),
    "sixth": ("#56B4E9", (3, 1, 1, 1, 1, 1)),
}

KINDS = {False: "plain", True: "batch norm"}  # by whether there is batch norm; the names are those of their styles


@dataclass(frozen=True)
class Line:
    """A curve for each run (a seed, as a rule), drawn as their mean and the band from lowest to highest."""

    label: str
    style: str
    x: tuple[float, ...]
    runs: dict[str, tuple[float | None, ...]]  # by the run's name; None where there is no value


@dataclass(frozen=True)
class Bars:
    """A histogram: `heights` over the intervals between `edges`, one more than they."""

    label: str
    style: str
    edges: tuple[float, ...]
    heights: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    title: str
    items: tuple[Line | Bars, ...]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Panels that share their axes' labels, `columns` side by side. y_range: of every panel; None scales each panel."""

    title: str
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    columns: int = 4
    log_x: bool = False
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A published figure, if there is one, beside what was measured over the runs: mean, lowest and highest."""

    setting: tuple[str, ...]  # as many as `Table.setting`
    kind: str  # "batch norm", "plain" or another of the columns side by side
    published: float | None
    mean: float
    low: float
    high: float
    note: str = ""  # as "1 of 3 diverged", or why it differs

    def agrees(self, tolerance: float) -> bool:
        """Whether the published figure lies within the runs' range, widened by `tolerance` on both sides."""
        return self.published is None or self.low - tolerance <= self.published <= self.high + tolerance


@dataclass(frozen=True)
class Table:
    """`source` names whose the published figures are; `tolerance` is how far they may lie outside the runs' range."""

    title: str
    setting: tuple[str, ...]
    rows: tuple[Row, ...]
    source: str
    tolerance: float

    @property
    def decimals(self) -> int | None:
        """As many as the published figures have, at least 3; None where there are none, and figures of many sizes."""
        published = [row.published for row in self.rows if row.published is not None]
        if published and max(map(abs, published)) < 100:
            return min(max([3, *(len(repr(v).partition(".")[2]) for v in published)]), 5)
        figures = [abs(v) for row in self.rows for v in (row.mean, row.low, row.high) if v]
        return 3 if not published and all(0.001 <= v < 100 for v in figures) else None


@dataclass(frozen=True)
class Verdict:
    """claim: of the tutorial or paper. rule: how the verdict follows from the numbers. reason: the numbers."""

    claim: str
    verdict: Literal["holds", "does not hold", "depends", "too short to judge"]
    rule: str
    reason: str


@dataclass(frozen=True)
class Findings:
    """too_short: why the run can judge no claim; empty where its verdicts count."""

    question: str
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    too_short: str = ""


def is_published(settings: Settings) -> bool:
    """Whether all but the seeds and where it is run is as published, which is an experiment's defaults on MNIST."""
    return bool(dataclasses.replace(settings, data_dir=None, backend=None, seeds=3) == type(settings)(data="mnist"))


def row(
    setting: tuple[str, ...], kind: str, values: Sequence[float], published: float | None = None, note: str = ""
) -> Row:
    """The row of one value a run."""
    return Row(setting, kind, published, statistics.fmean(values), min(values), max(values), note)


def where(records: Sequence[Record], **values: object) -> list[Record]:
    """The records that have these values."""
    return [r for r in records if all(r[name] == value for name, value in values.items())]


def mean(records: Sequence[Record], name: str) -> float:
    return float(statistics.mean(r[name] for r in records))


def last(records: Sequence[Record], name: str) -> list[Record]:
    """The records with the highest value of `name`."""
    return where(records, **{name: max(r[name] for r in records)})


def graded(holds: bool, depends: bool) -> Literal["holds", "depends", "does not hold"]:
    return "holds" if holds else "depends" if depends else "does not hold"


def lines(records: Sequence[Record], x: str, y: str) -> tuple[Line, ...]:
    """The curves with and without batch norm."""
    return tuple(line(KINDS[kind], KINDS[kind], where(records, batch_norm=kind), x, y) for kind in (True, False))


def line(label: str, style: str, records: Sequence[Record], x: str, y: str) -> Line:
    """The curve of the records' `y` over `x`, a run for each `seed`."""
    values = {(r["seed"], r[x]): r[y] for r in records}
    points = sorted({point for _, point in values})
    runs = {f"seed {seed}": tuple(values[seed, p] for p in points) for seed in sorted({s for s, _ in values})}
    return Line(label, style, tuple(map(float, points)), runs)


def diverged(records: Sequence[Record]) -> str:
    """The note on how many of the records tell that their network diverged, if any."""
    count = sum(r["diverged"] for r in records)
    return f"{count} of {len(records)} diverged" if count else ""


def diverged_kinds(records: Sequence[Record]) -> str:
    """That note for the networks with batch norm and for those without, a line each."""
    notes = {name: diverged(where(records, batch_norm=kind)) for kind, name in KINDS.items()}
    return "\n".join(f"{name}: {note}" for name, note in reversed(notes.items()) if note)
