"""A chart's curves and histograms as its figure and its script see them: rounded, and numbered by label and run."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bnkit.lab.experiments.axes import Axis, around
from bnkit.lab.experiments.findings import Bars, Chart, Line, Panel

_DIGITS = 5  # of a value; more than a figure shows, and as many as a record's accuracies have
Values = Sequence[float | None]


@dataclass(frozen=True)
class Index:
    """What a chart shows, each once and in the order of appearance: labels with their styles, and the runs' names."""

    series: list[tuple[str, str]]
    runs: list[str]

    @classmethod
    def of(cls, chart: Chart) -> "Index":
        items = list(chain.from_iterable(panel.items for panel in chart.panels))
        runs = chain.from_iterable(item.runs for item in items if isinstance(item, Line))
        return cls(list(dict.fromkeys((item.label, item.style) for item in items)), list(dict.fromkeys(runs)))

    def number(self, item: Line | Bars) -> int:
        return self.series.index((item.label, item.style))


@dataclass(frozen=True)
class Spread:
    """At one x, over the runs that have a value there: mean, lowest, highest."""

    mean: float
    low: float
    high: float


def spreads(runs: Sequence[Values]) -> list[Spread | None]:
    """One for each x; None where no run has a value."""
    kept = [[v for v in at if v is not None] for at in zip(*runs, strict=True)]
    return [Spread(statistics.fmean(at), min(at), max(at)) if at else None for at in kept]


def rounded(values: Values) -> list[float | None]:
    """None also for what is no number; whole numbers as integers, which are shorter in JSON."""
    short = (None if v is None or not math.isfinite(v) else float(f"{v:.{_DIGITS}g}") for v in values)
    return [int(v) if v is not None and v.is_integer() and abs(v) < 1e6 else v for v in short]


def heights(bars: Bars) -> list[float]:
    return [height or 0 for height in rounded(bars.heights)]


def of_runs(line: Line) -> list[Spread | None]:
    return spreads([rounded(values) for values in line.runs.values()])


def axes(chart: Chart, panel: Panel) -> tuple[Axis, Axis]:
    """x: from the panel's lowest to its highest. y: as the chart has it, or from the values; a histogram's from 0."""
    lines, bars = parted(panel)
    xs = chain(*(line.x for line in lines), *(b.edges for b in bars))
    x = around(xs, log=chart.log_x, margin=0.02)
    if chart.y_range is not None:
        return x, around(chart.y_range)
    ys = [v for line in lines for run in line.runs.values() for v in rounded(run) if v is not None]
    if not bars:
        return x, around(ys)
    y = around([0.0, *ys, *chain.from_iterable(heights(b) for b in bars)])
    return x, Axis(max(y.low, 0.0) if min(ys, default=0.0) >= 0 else y.low, y.high)


def for_script(chart: Chart, index: Index) -> dict[str, Any]:
    """What the script needs to redraw lines for some runs, and to show values; x and edges stand in `xs`, each once."""
    xs: dict[tuple[float | None, ...], int] = {}

    def at(values: Values) -> int:
        return xs.setdefault(tuple(rounded(values)), len(xs))

    panels = []
    for panel in chart.panels:
        x, y = axes(chart, panel)
        items: list[dict[str, Any]] = []
        for item in panel.items:
            head = {"s": index.number(item)}
            if isinstance(item, Line):
                runs = {index.runs.index(name): rounded(values) for name, values in item.runs.items()}
                items.append(head | {"x": at(item.x), "runs": runs})
            else:
                items.append(head | {"x": at(item.edges), "h": heights(item)})
        panels.append({"range": [x.low, x.high, y.low, y.high], "items": items})
    return {
        "x": chart.x_label,
        "log": chart.log_x,
        "series": [label for label, _ in index.series],
        "runs": index.runs,
        "xs": [list(values) for values in xs],
        "panels": panels,
    }


def parted(panel: Panel) -> tuple[list[Line], list[Bars]]:
    lines = [item for item in panel.items if isinstance(item, Line)]
    return lines, [item for item in panel.items if isinstance(item, Bars)]
