"""An experiment's charts as a figure of matplotlib: means with their bands, histograms, notes, one legend."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bnkit.lab.experiments.findings import STYLES, Bars, Chart, Line, Panel

_NOTE_LINES = 3  # of a panel's note that are shown


class Size(NamedTuple):
    """The size of a panel in inches, and of its text in points."""

    width: float
    lines: float  # the height of a panel with lines
    bars: float  # the height of a panel with histograms alone
    around: float  # the height that a chart's title, legend and x axis take
    text: float


ROOMY = Size(width=3.0, lines=2.1, bars=1.4, around=1.1, text=10)
DENSE = Size(width=1.6, lines=1.2, bars=0.95, around=0.9, text=8)  # for a hundred panels on a page


def draw(charts: Sequence[Chart | Sequence[Chart]], size: Size = ROOMY) -> Any:
    """One figure with the charts one below the other, where an inner sequence holds charts that lie side by side.

    The band around a line spans its runs.
    """
    from matplotlib.figure import Figure

    rows = [[item] if isinstance(item, Chart) else list(item) for item in charts]
    heights = [max(_height(chart, size) for chart in row) for row in rows]
    width = max(size.width * sum(_columns(chart) for chart in row) for row in rows)
    figure = Figure(figsize=(max(width, 6.0), sum(heights)), layout="constrained")
    below = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for row, line in zip(rows, below, strict=True):
        ratios = [_columns(chart) for chart in row]
        places = line.subfigures(1, len(row), width_ratios=ratios) if len(row) > 1 else [line]
        for chart, place in zip(row, places, strict=True):
            _chart(place, chart, size.text)
    return figure


def _height(chart: Chart, size: Size) -> float:
    return (size.lines if _has_lines(chart) else size.bars) * _lines(chart) + size.around


def _columns(chart: Chart) -> int:
    return min(chart.columns, len(chart.panels))


def _lines(chart: Chart) -> int:
    return -(-len(chart.panels) // _columns(chart))


def _has_lines(chart: Chart) -> bool:
    return any(isinstance(item, Line) for panel in chart.panels for item in panel.items)


def _chart(place: Any, chart: Chart, text: float) -> None:
    columns = _columns(chart)
    axes = place.subplots(_lines(chart), columns, sharex=True, sharey=chart.y_range is not None, squeeze=False)
    for panel in axes.flat[len(chart.panels) :]:
        panel.set_visible(False)
    for index, (panel, shown) in enumerate(zip(axes.flat, chart.panels, strict=False)):
        _panel(panel, shown, chart, text)
        last = index + columns >= len(chart.panels)  # of its column
        panel.tick_params(labelbottom=last)
        if last:  # and not once for all, which would lie over the legend
            panel.set_xlabel(chart.x_label, fontsize=text)
    legend = {t: h for panel in axes.flat for h, t in zip(*panel.get_legend_handles_labels(), strict=True)}
    place.suptitle(chart.title, fontsize=text + 2)
    place.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=max(columns, 2), frameon=False, fontsize=text
    )
    place.supylabel(chart.y_label, fontsize=text)


def _panel(panel: Any, shown: Panel, chart: Chart, text: float) -> None:
    panel.set_title(shown.title, fontsize=text)
    panel.tick_params(labelsize=text)
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    if chart.log_x:
        panel.set_xscale("log")
    if chart.y_range is not None:
        low, high = chart.y_range
        panel.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    for item in shown.items:
        if isinstance(item, Line):
            _line(panel, item)
        else:
            _bars(panel, item)
    if shown.note:
        note = "\n".join(shown.note.splitlines()[:_NOTE_LINES])
        panel.text(
            0.97, 0.04, note, fontsize=text - 2, ha="right", va="bottom", color="0.25", transform=panel.transAxes
        )


def _line(panel: Any, line: Line) -> None:
    colour, dashes = STYLES[line.style]
    runs = np.array([[np.nan if v is None else v for v in run] for run in line.runs.values()], float)
    known = np.isfinite(runs).any(axis=0)
    x, runs = np.array(line.x, float)[known], runs[:, known]
    panel.plot(x, np.nanmean(runs, axis=0), color=colour, linestyle=_dash(dashes), linewidth=1.8, label=line.label)
    panel.fill_between(x, np.nanmin(runs, axis=0), np.nanmax(runs, axis=0), color=colour, alpha=0.2, linewidth=0)


def _bars(panel: Any, bars: Bars) -> None:
    colour, dashes = STYLES[bars.style]
    panel.stairs(bars.heights, bars.edges, color=colour, fill=True, alpha=0.2)
    panel.stairs(bars.heights, bars.edges, color=colour, linestyle=_dash(dashes), linewidth=1.3, label=bars.label)


def _dash(dashes: tuple[float, ...]) -> Any:
    return (0, dashes) if dashes else "-"
