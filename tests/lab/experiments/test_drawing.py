"""Charts as figures: means, bands, gaps, histograms, notes, one legend, and colours by what is shown."""

import numpy as np
from matplotlib.colors import to_hex

from bnkit.lab.experiments.drawing import DENSE, draw
from bnkit.lab.experiments.findings import STYLES, Bars, Chart, Line, Panel
from bnkit.lab.experiments.styles import MARKERS, colours

RUNS = {"seed 0": (0.1, 0.2, None), "seed 1": (0.3, None, None)}
LINE = Line("accuracy", "plain", (1.0, 10.0, 100.0), RUNS)
BARS = Bars("values", "batch norm", (0.0, 0.5, 1.0), (0.25, 0.75))


def chart(*panels, **options):
    return Chart("title", "across", "up", panels, **options)


def axes_of(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def test_a_line_is_the_mean_of_its_runs_and_the_band_their_range():
    (axes,) = axes_of(draw([chart(Panel("one", (LINE,)))]))
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), [1, 10])  # where no run has a value there is no point
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.2])
    corners = {(x, round(y, 6)) for x, y in axes.collections[0].get_paths()[0].vertices}
    assert {(1.0, 0.1), (1.0, 0.3), (10.0, 0.2)} == corners


def test_colour_dashes_and_marker_are_those_of_the_style():
    items = tuple(Line(name, name, (0.0, 1.0), {"seed 0": (0.0, 1.0)}) for name in STYLES)
    (axes,) = axes_of(draw([chart(Panel("one", items))]))
    assert [to_hex(line.get_color()) for line in axes.lines] == list(colours("#ffffff").values())
    assert [line.get_marker() for line in axes.lines] == [marker.shape for marker in MARKERS.values()]
    assert [line.get_linestyle() == "-" for line in axes.lines] == [not dashes for _, dashes in STYLES.values()]


def test_bars_have_their_edges_and_heights():
    (axes,) = axes_of(draw([chart(Panel("one", (BARS,)))]))
    for patch in axes.patches:
        np.testing.assert_allclose(patch.get_data().values, BARS.heights)
        np.testing.assert_allclose(patch.get_data().edges, BARS.edges)


def test_charts_stand_below_each_other_with_a_legend_each():
    panels = [Panel(f"panel {i}", (LINE,), note="2 diverged" if i == 0 else "") for i in range(5)]
    figure = draw([chart(*panels, columns=2, log_x=True, y_range=(0.0, 1.0)), chart(Panel("bars", (BARS, LINE)))])
    axes = axes_of(figure)
    assert [a.get_title() for a in axes] == [*(f"panel {i}" for i in range(5)), "bars"]
    assert [t.get_text() for t in axes[0].texts] == ["2 diverged"]
    assert {a.get_xscale() for a in axes[:5]} == {"log"}
    assert all(a.get_ylim()[0] < 0 and a.get_ylim()[1] > 1 for a in axes[:5])
    legends = [[t.get_text() for t in legend.get_texts()] for place in figure.subfigs for legend in place.legends]
    assert legends == [["accuracy"], ["values", "accuracy"]]
    assert [a.get_xlabel() for a in axes] == ["", "", "", "across", "across", "across"], "at the foot of each column"


def test_charts_of_one_line_stand_side_by_side_as_wide_as_their_columns():
    wide, narrow = chart(*[Panel("bars", (BARS,))] * 3, columns=3), chart(Panel("line", (LINE,)))
    figure = draw([narrow, (wide, narrow)], DENSE)
    figure.draw_without_rendering()
    above, line = figure.subfigs
    left, right = line.subfigs
    assert above.bbox.y0 >= left.bbox.y1 - 1, "below the first chart"  # a pixel for rounding
    assert (left.bbox.y0, left.bbox.y1) == (right.bbox.y0, right.bbox.y1)
    assert left.bbox.x1 <= right.bbox.x0 + 1
    assert round(left.bbox.width / right.bbox.width) == 3
    assert figure.get_figwidth() == 4 * DENSE.width
