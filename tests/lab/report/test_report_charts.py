"""The paths of the report's charts, and the data for its script."""

import json
import math
import re

import pytest
import report_samples as samples

from bnkit.lab.experiments.findings import Bars, Chart, Line, Panel
from bnkit.lab.experiments.series import prepare
from bnkit.lab.report import charts


def panel_paths(*items, **options):
    """The classes and paths of a chart of one panel."""
    (panel,) = prepare(Chart("c", "x", "y", (Panel("p", items),), **options)).panels
    return dict(path for item in panel.items for path in charts.paths(item, panel))


def points(path):
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([-\d.]+ [-\d.]+)", path)]


def test_a_line_is_the_mean_and_the_band_spans_the_runs():
    found = panel_paths(Line("a", "plain", (0, 1), {"0": (0, 0.4), "1": (1, 0.6)}), y_range=(0, 1))
    mean, band = points(found["mean"]), points(found["band"])
    assert [y for _, y in mean] == [charts.HEIGHT / 2] * 2
    top, bottom = charts.HEIGHT * 0.04 / 1.08, charts.HEIGHT * 1.04 / 1.08  # the axis is 4% longer at both ends
    assert band[0][1] == pytest.approx(top, abs=0.05)  # coordinates have one decimal
    assert band[-1][1] == pytest.approx(bottom, abs=0.05)


def test_one_run_has_no_band():
    assert "band" not in panel_paths(Line("a", "plain", (0, 1), {"0": (0, 1)}))


def test_a_missing_value_is_a_gap_and_a_point_alone_a_dot():
    values = (1, 2, None, 3, None)
    path = panel_paths(Line("a", "plain", (1, 2, 3, 4, 5), {"0": values}))["mean"]
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert path.endswith("h.1")


def test_points_without_a_logarithm_are_left_out():
    path = panel_paths(Line("a", "plain", (0, 1, 10, 100), {"0": (1, 2, 3, 4)}), log_x=True)["mean"]
    first, second, third = points(path)
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.11)  # each has one decimal


def test_a_histogram_stands_on_zero_over_its_edges():
    path = panel_paths(Bars("a", "plain", (0, 1, 2), (10, 20)))["bars"]
    start, *steps = re.split("[VH]", path.rstrip("Z"))
    assert len(steps) == 5
    assert start.split()[1] == steps[-1] == str(charts.HEIGHT), "the axis begins at 0"
    assert float(steps[2]) < float(steps[0]), "the second step is the higher one"


def test_what_is_no_number_is_a_gap_or_no_bar():
    values = (1.0, math.nan, math.inf, 2.0)
    found = panel_paths(Line("a", "plain", (1, 2, 3, 4), {"0": values}))["mean"]
    assert found == panel_paths(Line("a", "plain", (1, 2, 3, 4), {"0": (1.0, None, None, 2.0)}))["mean"]
    found = panel_paths(Bars("a", "plain", (0, 1, 2), (10, math.nan)))["bars"]
    assert found == panel_paths(Bars("a", "plain", (0, 1, 2), (10, 0)))["bars"]


def test_a_value_far_outside_stays_in_coordinates_that_can_be_drawn():
    path = panel_paths(Line("a", "plain", (0, 1), {"0": (0, 1e300)}), y_range=(0, 1))["mean"]
    assert all(abs(y) < 10 * charts.HEIGHT for _, y in points(path))


def test_the_script_gets_every_run_and_each_x_once():
    chart = samples.weight_scale().charts[0]
    page = samples.page([samples.experiment("weight-scale")])
    data = json.loads(re.search(r'class="data">(.*?)</script>', page).group(1))
    assert data["runs"] == ["seed 0", "seed 1", "seed 2"]
    assert data["series"] == ["plain", "batch norm"]
    assert data["xs"] == [list(range(1, 21))]
    line = chart.panels[3].items[1]
    for run, values in enumerate(line.runs.values()):
        assert data["panels"][3]["items"][1]["runs"][str(run)] == pytest.approx(values, rel=1e-4)  # five digits
