"""The data of a chart that script.js reads: it draws the mean of some of the runs, and shows values."""

from collections.abc import Sequence

from bnkit.lab.experiments.series import Histogram, PreparedChart, rounded


def script_data(chart: PreparedChart) -> dict[str, object]:
    """The chart's values as JSON can hold them, with series, runs and x by their index.

    xs: the x of each line and the edges of each histogram, each once. range: low and high of x, then of y. An item has
    `s` and `x`, the indices of its series and its x; a line has `runs` and `marks`, a histogram `heights`.
    """
    xs: dict[tuple[float | None, ...], int] = {}

    def index(values: Sequence[float | None]) -> int:
        return xs.setdefault(tuple(values), len(xs))

    panels = []
    for panel in chart.panels:
        items: list[dict[str, object]] = []
        for item in panel.items:
            if isinstance(item, Histogram):
                data: dict[str, object] = {"x": index(rounded(item.edges)), "heights": item.heights}
            else:
                runs = {chart.runs.index(name): values for name, values in item.runs.items()}
                data = {"x": index(item.x), "runs": runs, "marks": list(item.marks)}
            items.append({"s": chart.number(item), **data})
        panels.append({"range": [panel.x.low, panel.x.high, panel.y.low, panel.y.high], "items": items})
    labels = [label for label, _ in chart.series]
    shared = {"x": chart.x_label, "log": chart.log_x, "series": labels, "runs": chart.runs}
    return {**shared, "xs": [list(values) for values in xs], "panels": panels}
