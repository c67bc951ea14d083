"""A chart prepared for drawing, so that matplotlib and the report show the same values, ranges and labels."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from bnkit.lab.experiments.axes import Axis, around
from bnkit.lab.experiments.findings import STYLES, Bars, Chart, Line, Panel

_DIGITS = 5  # significant digits of a value, as many as the accuracies in a record have
_MARKS = 5  # markers of a line, about
Values = Sequence[float | None]


@dataclass(frozen=True)
class Spread:
    """The mean, the lowest and the highest value of the runs at one x."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The runs of a line by name, and for each x the spread of the runs: None where no run has a value."""

    label: str
    style: str
    x: list[float | None]
    runs: dict[str, list[float | None]]
    spreads: list[Spread | None]
    marks: range  # the indices of the points with a marker

    @property
    def known(self) -> list[tuple[int, float, Spread]]:
        """Index, x and spread of each point that has a value."""
        points = enumerate(zip(self.x, self.spreads, strict=True))
        return [(i, x, spread) for i, (x, spread) in points if x is not None and spread is not None]


@dataclass(frozen=True)
class Histogram:
    """`heights` over the intervals between `edges`; a height that is not finite is 0."""

    label: str
    style: str
    edges: list[float]
    heights: list[float]


@dataclass(frozen=True)
class PreparedPanel:
    title: str
    note: str
    x: Axis
    y: Axis
    items: tuple[Curve | Histogram, ...]


@dataclass(frozen=True)
class PreparedChart:
    """`series` has each pair of label and style once, in order of appearance; `runs` has each run's name once."""

    title: str
    x_label: str
    y_label: str
    columns: int
    log_x: bool
    series: list[tuple[str, str]]
    runs: list[str]
    panels: tuple[PreparedPanel, ...]

    def number(self, item: Curve | Histogram) -> int:
        """The item's index in `series`."""
        return self.series.index((item.label, item.style))

    def has_line(self, number: int) -> bool:
        """Whether the series of this index is a line in any panel."""
        return any(isinstance(i, Curve) and self.number(i) == number for panel in self.panels for i in panel.items)


def prepare(chart: Chart) -> PreparedChart:
    """The chart with rounded values, the spread of its runs, and the axes of each panel.

    ValueError if an item has a style that STYLES lacks.
    """
    items = list(chain.from_iterable(panel.items for panel in chart.panels))
    for item in items:
        if item.style not in STYLES:
            raise ValueError(f"a style must be one of {', '.join(STYLES)}, got {item.style!r}")
    series = list(dict.fromkeys((item.label, item.style) for item in items))
    runs = list(dict.fromkeys(chain.from_iterable(item.runs for item in items if isinstance(item, Line))))
    panels = tuple(_panel(chart, panel) for panel in chart.panels)
    columns = max(1, min(chart.columns, len(panels)))
    return PreparedChart(chart.title, chart.x_label, chart.y_label, columns, chart.log_x, series, runs, panels)


def spreads(runs: Sequence[Values]) -> list[Spread | None]:
    """The spread at each x; None where no run has a value."""
    kept = [[v for v in at if v is not None] for at in zip(*runs, strict=True)]
    return [Spread(statistics.fmean(at), min(at), max(at)) if at else None for at in kept]


def rounded(values: Values) -> list[float | None]:
    """The values to five digits; None for one that is not finite; whole numbers as integers, shorter in JSON."""
    short = (None if v is None or not math.isfinite(v) else float(f"{v:.{_DIGITS}g}") for v in values)
    return [int(v) if v is not None and v.is_integer() and abs(v) < 1e6 else v for v in short]


def _panel(chart: Chart, panel: Panel) -> PreparedPanel:
    items = tuple(_item(item, number, len(panel.items)) for number, item in enumerate(panel.items))
    x, y = _axes(chart, panel, items)
    return PreparedPanel(panel.title, panel.note, x, y, items)


def _item(item: Line | Bars, number: int, count: int) -> Curve | Histogram:
    if isinstance(item, Bars):
        return Histogram(item.label, item.style, list(item.edges), [height or 0 for height in rounded(item.heights)])
    runs = {name: rounded(values) for name, values in item.runs.items()}
    marks = _marks(len(item.x), number, count)
    return Curve(item.label, item.style, rounded(item.x), runs, spreads(list(runs.values())), marks)


def _marks(points: int, number: int, count: int) -> range:
    """Every so many points, with another start for each of the panel's `count` items.

    Lines that cover each other then show the markers of each in turn.
    """
    step = max(count, -(-points // _MARKS))
    return range(step * number // count, points, step)


def _axes(chart: Chart, panel: Panel, items: Sequence[Curve | Histogram]) -> tuple[Axis, Axis]:
    """x: from the lowest to the highest of the panel. y: the chart's range, or the values; a histogram starts at 0."""
    x = around(
        chain.from_iterable(item.x if isinstance(item, Line) else item.edges for item in panel.items),
        log=chart.log_x,
        margin=0.02,
    )
    if chart.y_range is not None:
        return x, around(chart.y_range)
    curves = [item for item in items if isinstance(item, Curve)]
    ys = [v for curve in curves for run in curve.runs.values() for v in run if v is not None]
    heights = [height for item in items if isinstance(item, Histogram) for height in item.heights]
    if not heights:
        return x, around(ys)
    y = around([0.0, *ys, *heights])
    return x, Axis(max(y.low, 0.0) if min(ys, default=0.0) >= 0 else y.low, y.high)
