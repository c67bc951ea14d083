"""The charts of an experiment as a figure of matplotlib: means with their bands, histograms, notes, one legend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from bnkit.lab.experiments.findings import STYLES, Chart
from bnkit.lab.experiments.series import Curve, Histogram, PreparedChart, PreparedPanel, prepare
from bnkit.lab.experiments.styles import MARKERS, colours

if TYPE_CHECKING:
    import matplotlib.figure

Figure: TypeAlias = "matplotlib.figure.Figure"

_BACKGROUND = "#ffffff"
_NOTE_LINES = 3  # the lines of a panel's note that the figure has room for


class Size(NamedTuple):
    """The size of a panel in inches, and of its text in points."""

    width: float
    lines: float  # the height of a panel with lines
    bars: float  # the height of a panel with only histograms
    around: float  # the height of a chart's title, legend and x axis together
    text: float


ROOMY = Size(width=3.0, lines=2.1, bars=1.4, around=1.1, text=10)
DENSE = Size(width=1.6, lines=1.2, bars=0.95, around=0.9, text=8)  # for a hundred panels on a page


def draw(charts: Sequence[Chart | Sequence[Chart]], size: Size = ROOMY) -> Figure:
    """A `matplotlib.figure.Figure` with the charts one below the other; charts of an inner sequence are side by side.

    The band around a line spans its runs. ValueError if a style is unknown.
    """
    from matplotlib.figure import Figure

    rows = [[prepare(c) for c in ([item] if isinstance(item, Chart) else item)] for item in charts]
    heights = [max(_height(chart, size) for chart in row) for row in rows]
    width = max(size.width * sum(chart.columns for chart in row) for row in rows)
    figure = Figure(figsize=(max(width, 6.0), sum(heights)), layout="constrained")
    below = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for row, line in zip(rows, below, strict=True):
        ratios = [chart.columns for chart in row]
        places = line.subfigures(1, len(row), width_ratios=ratios) if len(row) > 1 else [line]
        for chart, place in zip(row, places, strict=True):
            _chart(place, chart, size.text)
    return figure


def _height(chart: PreparedChart, size: Size) -> float:
    has_lines = any(isinstance(item, Curve) for panel in chart.panels for item in panel.items)
    return (size.lines if has_lines else size.bars) * _lines(chart) + size.around


def _lines(chart: PreparedChart) -> int:
    return -(-len(chart.panels) // chart.columns)


def _chart(place: Any, chart: PreparedChart, text: float) -> None:
    columns = chart.columns
    same_y = len({panel.y for panel in chart.panels}) == 1
    axes = place.subplots(_lines(chart), columns, sharex=True, sharey=same_y, squeeze=False)
    for panel in axes.flat[len(chart.panels) :]:
        panel.set_visible(False)
    for index, (panel, shown) in enumerate(zip(axes.flat, chart.panels, strict=False)):
        _panel(panel, shown, chart.log_x, text)
        last = index + columns >= len(chart.panels)  # in its column
        panel.tick_params(labelbottom=last)
        if last:  # one label for the whole figure would cover the legend
            panel.set_xlabel(chart.x_label, fontsize=text)
    axes.flat[0].set_xlim(min(p.x.low for p in chart.panels), max(p.x.high for p in chart.panels))
    legend = {t: h for panel in axes.flat for h, t in zip(*panel.get_legend_handles_labels(), strict=True)}
    place.suptitle(chart.title, fontsize=text + 2)
    place.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=max(columns, 2), frameon=False, fontsize=text
    )
    place.supylabel(chart.y_label, fontsize=text)


def _panel(panel: Any, shown: PreparedPanel, log_x: bool, text: float) -> None:
    panel.set_title(shown.title, fontsize=text)
    panel.tick_params(labelsize=text)
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    if log_x:
        panel.set_xscale("log")
    panel.set_ylim(shown.y.low, shown.y.high)
    for item in shown.items:
        if isinstance(item, Curve):
            _line(panel, item)
        else:
            _bars(panel, item)
    if shown.note:
        note = "\n".join(shown.note.splitlines()[:_NOTE_LINES])
        panel.text(
            0.97, 0.04, note, fontsize=text - 2, ha="right", va="bottom", color="0.25", transform=panel.transAxes
        )


def _line(panel: Any, curve: Curve) -> None:
    colour, marker = colours(_BACKGROUND)[curve.style], MARKERS[curve.style]
    known = curve.known
    x = [x for _, x, _ in known]
    panel.plot(
        x,
        [spread.mean for _, _, spread in known],
        color=colour,
        linestyle=_dash(curve.style),
        linewidth=1.8,
        marker=marker.shape,
        markersize=4.5 if marker.shape in "os" else 8,  # a bar or a cross must reach beyond the line
        markerfacecolor=colour if marker.filled else _BACKGROUND,
        markevery=[place for place, (index, _, _) in enumerate(known) if index in curve.marks],
        label=curve.label,
    )
    low, high = [spread.low for _, _, spread in known], [spread.high for _, _, spread in known]
    panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _bars(panel: Any, histogram: Histogram) -> None:
    colour = colours(_BACKGROUND)[histogram.style]
    panel.stairs(histogram.heights, histogram.edges, color=colour, fill=True, alpha=0.2)
    dash = _dash(histogram.style)
    panel.stairs(histogram.heights, histogram.edges, color=colour, linestyle=dash, linewidth=1.3, label=histogram.label)


def _dash(style: str) -> Any:
    _, dashes = STYLES[style]
    return (0, dashes) if dashes else "-"
