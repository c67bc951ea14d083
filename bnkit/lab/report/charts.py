"""A chart as HTML: a legend that switches series and runs, and a grid of panels, each an inline SVG.

The SVG stretches with its panel, so a panel has the shape its place allows; all text stands beside it as HTML, whose
size does not follow. Widths of lines and lengths of dashes are in CSS pixels through vector-effect.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from bnkit.lab.experiments import series
from bnkit.lab.experiments.axes import Axis, number
from bnkit.lab.experiments.findings import Bars, Chart, Line, Panel
from bnkit.lab.experiments.series import Index, Spread
from bnkit.lab.report.markup import Markup, data, tag
from bnkit.lab.report.palette import style_class

WIDTH, HEIGHT = 300, 200  # of an SVG, in its own units; the script has the same
_X_TICKS, _Y_TICKS = 5, 5
Point = tuple[float, float] | None


def figure(chart: Chart, name: str) -> Markup:
    """`name` is the figure's id, and the beginning of the ids in it."""
    index = Index.of(chart)
    axes = [series.axes(chart, panel) for panel in chart.panels]
    gutter = max((len(text) for _, y in axes for _, text in y.ticks(_Y_TICKS)), default=1)
    panels = [
        _panel(chart, panel, x, y, index, f"{name}-{number_}")
        for number_, (panel, (x, y)) in enumerate(zip(chart.panels, axes, strict=True), 1)
    ]
    columns = max(1, min(chart.columns, len(panels)))
    return tag(
        "figure",
        tag("figcaption", chart.title, id=f"{name}-title"),
        _legend(index),
        tag("p", tag("span", "↑ ", chart.y_label), tag("span", chart.x_label, " →"), class_="axes"),
        tag("div", *panels, class_=f"panels of{min(columns, 4)}", style=f"--columns:{columns};--gutter:{gutter}"),
        data(series.for_script(chart, index), class_="data"),
        class_="chart",
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _legend(index: Index) -> Markup:
    buttons = [
        tag("button", _swatch(style), label, type="button", aria_pressed="true", data_series=i)
        for i, (label, style) in enumerate(index.series)
    ]
    parts = [tag("div", *buttons, class_="toggles", role="group", aria_label="Series")]
    if len(index.runs) > 1:
        runs = [
            tag("button", name, type="button", aria_pressed="true", data_run=i) for i, name in enumerate(index.runs)
        ]
        each = tag("button", "draw each run", type="button", aria_pressed="false", data_each=True)
        head = tag("span", "mean and range of")
        # Only the script can draw for some of the runs, and so it shows these.
        parts.append(tag("div", head, *runs, each, class_="toggles", role="group", aria_label="Runs", hidden=True))
    return tag("div", *parts, class_="legend")


def _swatch(style: str) -> Markup:
    line = tag("path", class_="mean", d="M2 6h32")
    return tag("svg", line, class_=f"swatch {style_class(style)}", viewBox="0 0 36 12", aria_hidden="true")


def _panel(chart: Chart, panel: Panel, x: Axis, y: Axis, index: Index, name: str) -> Markup:
    x_ticks, y_ticks = x.ticks(_X_TICKS), y.ticks(_Y_TICKS)
    grid = "".join(f"M0 {_text(_down(y, v))}H{WIDTH}" for v, _ in y_ticks) + "".join(
        f"M{_text(_across(x, v))} 0V{HEIGHT}" for v, _ in x_ticks
    )
    drawing = tag(
        "svg",
        tag("path", class_="grid", d=grid),
        *(_item(item, x, y, index) for item in panel.items),
        tag("path", class_="cross"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=_in_words(chart, panel),
    )
    return tag(
        "div",
        tag("h4", panel.title),
        tag(
            "div",
            tag("div", *(_tick(text, y.place(v), "bottom") for v, text in y_ticks), class_="y", aria_hidden="true"),
            drawing,
            tag("div", *(_tick(text, x.place(v), "left") for v, text in x_ticks), class_="x", aria_hidden="true"),
            class_="plot",
        ),
        tag("p", panel.note, class_="note") if panel.note else None,
        class_="panel",
        id=name,
    )


def _tick(text: str, place: float | None, side: str) -> Markup:
    assert place is not None, "a tick lies on its axis"
    return tag("span", text, style=f"{side}:{100 * place:.4g}%")


def _item(item: Line | Bars, x: Axis, y: Axis, index: Index) -> Markup:
    place = index.number(item)
    if isinstance(item, Bars):
        drawn = [tag("path", class_="bars", d=outline(item, x, y))]
    else:
        across = [_across(x, v) for v in series.rounded(item.x)]
        found = series.of_runs(item)
        drawn = [tag("path", class_="mean", d=curve(_points(across, found, y, "mean")))]
        if len(item.runs) > 1:
            drawn.insert(0, tag("path", class_="band", d=band(across, found, y)))
    return tag("g", *drawn, class_=style_class(item.style), data_series=place)


def curve(points: Iterable[Point]) -> str:
    """A path through the points that are there, with a gap where one is not; a point between gaps is a dot."""
    path = ""
    for part in _parts(list(points)):
        path += "M" + "L".join(f"{_text(x)} {_text(y)}" for x, y in part) + ("h.1" if len(part) == 1 else "")
    return path


def band(across: Sequence[float | None], found: Sequence[Spread | None], y: Axis) -> str:
    """The surface between lowest and highest."""
    low, high = (list(_points(across, found, y, side)) for side in ("low", "high"))
    path = ""
    for top, bottom in zip(_parts(high), _parts(low), strict=True):
        path += "M" + "L".join(f"{_text(x)} {_text(y)}" for x, y in [*top, *reversed(bottom)]) + "Z"
    return path


def outline(bars: Bars, x: Axis, y: Axis) -> str:
    """The steps of a histogram, closed at the bottom; on a logarithmic axis from its first edge above 0."""
    path, bottom = "", _text(_down(y, 0.0))
    for (left, right), height in zip(pairwise(bars.edges), series.heights(bars), strict=True):
        start, end = _across(x, left), _across(x, right)
        if start is None or end is None:
            continue
        path += "" if path else f"M{_text(start)} {bottom}"
        path += f"V{_text(_down(y, height))}H{_text(end)}"
    return f"{path}V{bottom}Z" if path else ""


def _points(across: Sequence[float | None], found: Sequence[Spread | None], y: Axis, side: str) -> Iterable[Point]:
    for x, spread in zip(across, found, strict=True):
        yield None if x is None or spread is None else (x, _down(y, getattr(spread, side)))


def _parts(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    parts: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _across(axis: Axis, value: float | None) -> float | None:
    place = None if value is None else axis.place(value)
    return None if place is None else _near(place) * WIDTH


def _down(axis: Axis, value: float) -> float:
    place = axis.place(value)
    assert place is not None, "no chart has a logarithmic y"
    return (1 - _near(place)) * HEIGHT


def _near(place: float) -> float:
    """What lies far outside a panel stays outside, in coordinates that every browser has."""
    return min(max(place, -2.0), 3.0)


def _text(coordinate: float | None) -> str:
    return f"{coordinate or 0:.1f}".removesuffix(".0")


def _in_words(chart: Chart, panel: Panel) -> str:
    """What the picture shows, for those who hear it."""
    lines, bars = series.parted(panel)
    told = []
    for line in lines:
        found = [s for s in series.of_runs(line) if s is not None]
        if not found:
            told.append(f"{line.label} has no value")
            continue
        last = found[-1]
        spread = "" if last.low == last.high else f", {number(last.low)} to {number(last.high)}"
        told.append(f"{line.label} starts at {number(found[0].mean)} and ends at {number(last.mean)}{spread}")
    for b in bars:
        heights = series.heights(b)
        top = heights.index(max(heights))
        told.append(
            f"{b.label} from {number(b.edges[0])} to {number(b.edges[-1])}, highest at {number(b.edges[top])}"
            f" to {number(b.edges[top + 1])}"
        )
    return f"{panel.title}: {chart.y_label} against {chart.x_label}. {'; '.join(told)}."
