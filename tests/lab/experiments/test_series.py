"""A chart prepared for drawing: the spread of its runs, its ranges, and markers that do not cover each other."""

import pytest

from bnkit.lab.experiments.findings import Bars, Chart, Line, Panel
from bnkit.lab.experiments.series import Spread, prepare, spreads


def test_the_mean_is_of_the_runs_that_have_a_value():
    assert spreads([(1, None), (3, None)]) == [Spread(2, 1, 3), None]
    assert spreads([(1,), (None,)]) == [Spread(1, 1, 1)]


def test_equal_lines_have_their_markers_at_different_points():
    for points in (4, 5, 16, 61):
        x = tuple(float(i) for i in range(points))
        lines = tuple(Line(style, style, x, {"0": x}) for style in ("plain", "batch norm", "third"))
        marked = [i for item in prepare(Chart("c", "x", "y", (Panel("p", lines),))).panels[0].items for i in item.marks]
        assert len(marked) == len(set(marked)) >= 4


def test_every_panel_has_the_charts_range_and_a_histogram_starts_at_zero():
    line, bars = Line("a", "plain", (1, 2), {"0": (5.0, 6.0)}), Bars("b", "third", (0, 1, 2), (3.0, 4.0))
    shared = prepare(Chart("c", "x", "y", (Panel("p", (line,)), Panel("q", (bars,))), y_range=(0, 1)))
    assert shared.panels[0].y == shared.panels[1].y
    assert prepare(Chart("c", "x", "y", (Panel("q", (bars,)),))).panels[0].y.low == 0


def test_series_and_runs_are_numbered_in_order_of_appearance():
    lines = [Line(label, "plain", (1,), {run: (1.0,)}) for label, run in (("b", "1"), ("a", "0"), ("b", "0"))]
    ready = prepare(Chart("c", "x", "y", tuple(Panel("p", (line,)) for line in lines)))
    assert (ready.series, ready.runs) == ([("b", "plain"), ("a", "plain")], ["1", "0"])
    assert [ready.number(panel.items[0]) for panel in ready.panels] == [0, 1, 0]


def test_a_style_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"style must be one of batch norm, plain, .*, got 'plane'"):
        prepare(Chart("c", "x", "y", (Panel("p", (Line("a", "plane", (1,), {"0": (1,)}),)),)))
