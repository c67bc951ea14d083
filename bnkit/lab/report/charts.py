"""A chart's paths and words for the template.

An SVG stretches with its panel. Its text is HTML beside it, whose size does not follow. Widths of lines and lengths
of dashes are in CSS pixels through vector-effect.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from bnkit.lab.experiments.axes import Axis, number
from bnkit.lab.experiments.series import Curve, Histogram, PreparedChart, PreparedPanel, Spread
from bnkit.lab.report.palette import is_hollow, marker_path

WIDTH, HEIGHT = 300, 200  # an SVG's units; script.js has the same
TICKS = 5  # at most, on each axis
Point = tuple[float, float]


def paths(item: Curve | Histogram, panel: PreparedPanel) -> list[tuple[str, str]]:
    """The paths that draw the item, each as its CSS class and its `d`."""
    if isinstance(item, Histogram):
        return [("bars", outline(item, panel.x, panel.y))]
    across = [_across(panel.x, v) for v in item.x]
    mean, high, low = (_points(across, item.spreads, panel.y, side) for side in ("mean", "high", "low"))
    marker = marker_path(item.style)
    marks = "".join(f"M{_text(p[0])} {_text(p[1])}{marker}" for i in item.marks if (p := mean[i]) is not None)
    drawn = [("band", band(high, low))] if len(item.runs) > 1 else []
    drawn += [("mean", curve(mean)), ("mark", marks)]
    return [*drawn, ("mark core", marks)] if is_hollow(item.style) else drawn


def grid_lines(panel: PreparedPanel) -> str:
    """The path of a line at each tick."""
    level = "".join(f"M0 {_text(_down(panel.y, v))}H{WIDTH}" for v, _ in panel.y.ticks(TICKS))
    return level + "".join(f"M{_text(_across(panel.x, v))} 0V{HEIGHT}" for v, _ in panel.x.ticks(TICKS))


def gutter(chart: PreparedChart) -> int:
    """The letters of the longest label on a y axis."""
    return max((len(label) for panel in chart.panels for _, label in panel.y.ticks(TICKS)), default=1)


def curve(points: Iterable[Point | None]) -> str:
    """The path through the points, with a gap at each None; a point between two gaps is a dot."""
    return "".join(_joined(part) + ("h.1" if len(part) == 1 else "") for part in _parts(points))


def band(high: Iterable[Point | None], low: Iterable[Point | None]) -> str:
    """The path around the surface between highest and lowest, with the same gaps."""
    parts = zip(_parts(high), _parts(low), strict=True)
    return "".join(_joined([*top, *reversed(bottom)]) + "Z" for top, bottom in parts)


def outline(histogram: Histogram, x: Axis, y: Axis) -> str:
    """The steps of a histogram, closed at the bottom; on a logarithmic axis they start at the first edge above 0."""
    path, bottom = "", _text(_down(y, 0.0))
    for (left, right), height in zip(pairwise(histogram.edges), histogram.heights, strict=True):
        start, end = _across(x, left), _across(x, right)
        if start is None or end is None:
            continue
        path += "" if path else f"M{_text(start)} {bottom}"
        path += f"V{_text(_down(y, height))}H{_text(end)}"
    return f"{path}V{bottom}Z" if path else ""


def in_words(chart: PreparedChart, panel: PreparedPanel) -> str:
    """The panel's content as a sentence, for a screen reader."""
    phrases = [_curve_in_words(i) if isinstance(i, Curve) else _histogram_in_words(i) for i in panel.items]
    return f"{panel.title}: {chart.y_label} against {chart.x_label}. {'; '.join(phrases)}."


def grid_labels(chart: PreparedChart) -> tuple[list[str], list[str]]:
    """Labels of rows and columns if the panels' titles are "row, column" for every row and column; else none."""
    titles = [panel.title.rpartition(", ") for panel in chart.panels]
    rows, heads = [row for row, _, _ in titles[:: chart.columns]], [head for _, _, head in titles[: chart.columns]]
    if chart.columns < 2 or not all(rows) or titles != [(row, ", ", head) for row in rows for head in heads]:
        return [], []
    return rows, heads


def scale(chart: PreparedChart) -> str:
    """The y axis of a grid in words, since its panels have no ticks on it."""
    if len({panel.y for panel in chart.panels}) > 1:
        return "scaled to each panel"
    ticks = chart.panels[0].y.ticks(TICKS)
    return f"{ticks[0][1]} to {ticks[-1][1]}"


def _curve_in_words(curve: Curve) -> str:
    spreads = [spread for spread in curve.spreads if spread is not None]
    if not spreads:
        return f"{curve.label} has no value"
    last = spreads[-1]
    span = "" if last.low == last.high else f", {number(last.low)} to {number(last.high)}"
    return f"{curve.label} starts at {number(spreads[0].mean)} and ends at {number(last.mean)}{span}"


def _histogram_in_words(histogram: Histogram) -> str:
    edges, top = histogram.edges, histogram.heights.index(max(histogram.heights))
    return (
        f"{histogram.label} from {number(edges[0])} to {number(edges[-1])}, highest at {number(edges[top])}"
        f" to {number(edges[top + 1])}"
    )


def _points(across: Sequence[float | None], spreads: Sequence[Spread | None], y: Axis, side: str) -> list[Point | None]:
    return [
        None if x is None or spread is None else (x, _down(y, getattr(spread, side)))
        for x, spread in zip(across, spreads, strict=True)
    ]


def _parts(points: Iterable[Point | None]) -> list[list[Point]]:
    parts: list[list[Point]] = [[]]
    for point in points:
        if point is not None:
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _joined(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{_text(x)} {_text(y)}" for x, y in points)


def _across(axis: Axis, value: float | None) -> float | None:
    place = None if value is None else axis.place(value)
    return None if place is None else _clamped(place) * WIDTH


def _down(axis: Axis, value: float) -> float:
    place = axis.place(value)
    assert place is not None, "no chart has a logarithmic y"
    return (1 - _clamped(place)) * HEIGHT


def _clamped(place: float) -> float:
    """A place far outside the panel stays outside, at coordinates that every browser can draw."""
    return min(max(place, -2.0), 3.0)


def _text(coordinate: float | None) -> str:
    return f"{coordinate or 0:.1f}".removesuffix(".0")
