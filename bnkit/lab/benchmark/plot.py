"""The roofline figure: the share of the copy bandwidth that each op reaches, by the size of its tensor."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bnkit.lab.benchmark.measure import OPS
from bnkit.lab.benchmark.rows import Row

# Okabe & Ito's colours, which colour-blind readers can distinguish, and one marker for each.
STYLES = {"bnkit": ("#0072B2", "o"), "torch": ("#D55E00", "s"), "jax": ("#009E73", "^"), "tutorial": ("#CC79A7", "D")}
OTHER = ("#000000", "v")
LINES = ("-", "--", ":", "-.")  # one for each dtype


def plot(rows: Sequence[Row], copy_gb_per_s: float, caches: dict[str, int]) -> Any:
    """A Matplotlib figure with one panel for each op; ValueError if no row was measured.

    Each small marker is a row. Each line connects the geometric means of the rows in one doubling of the size.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["through"] == "function"]
    ops = [op for op in OPS if any(row["op"] == op for row in rows)]
    if not ops:
        raise ValueError("rows must hold at least one that was measured through the function, got none")
    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(len(ops), 4 if len(ops) > 6 else 3)
    lines = -(-len(ops) // columns)
    figure = Figure(figsize=(max(3.6 * columns, 6) + 0.6, 3.2 * lines + 1.2), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    for panel, op in zip(panels.flat, ops, strict=False):
        _panel(panel, op, [row for row in rows if row["op"] == op], dtypes, caches)
    panels.flat[0].set_ylim(top=max(3.0, panels.flat[0].get_ylim()[1]))  # room for the names of the caches
    for panel in panels.flat[len(ops) :]:
        panel.set_visible(False)
    for index, panel in enumerate(panels.flat[: len(ops)]):
        panel.tick_params(labelbottom=index + columns >= len(ops))  # the lowest panel of its column
    # One panel may lack an entry of another: an inference has no two-read floor.
    legend = {
        t: h for panel in panels.flat[: len(ops)] for h, t in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=2 + columns, frameon=False)
    figure.supxlabel("size of the tensor x", fontsize=11)
    figure.supylabel(f"one-read bytes a second,\n1 = a copy ({copy_gb_per_s:.0f} GB/s)", fontsize=11)
    return figure


def _panel(panel: Any, op: str, rows: list[Row], dtypes: list[str], caches: dict[str, int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    panel.set_title(op, fontsize=11)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.axhline(1, color="0.2", linewidth=1.3, label="one-read floor")
    two_reads = OPS[op].one_read / OPS[op].two_reads
    if two_reads < 1:
        panel.axhline(two_reads, color="0.2", linewidth=1.1, linestyle=(0, (1, 2)), label="two-read floor")
    for name, size in caches.items():
        panel.axvline(size, color="0.8", linewidth=1, zorder=0)
        panel.text(size, 0.97, f" {name}", color="0.4", fontsize=8, va="top", transform=panel.get_xaxis_transform())
    for (name, dtype), points in _series(rows).items():
        colour, marker = STYLES.get(name, OTHER)
        line = LINES[dtypes.index(dtype) % len(LINES)]
        label = name if len(dtypes) == 1 else f"{name} {dtype}"
        panel.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, alpha=0.5, markeredgewidth=0)
        panel.plot(*_means(points), line, color=colour, linewidth=1.6, marker=marker, markersize=5, label=label)
    panel.xaxis.set_major_locator(LogLocator(base=16))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value)))
    panel.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="y", color="0.92", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _series(rows: list[Row]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """The (size, share) of each row, by implementation and dtype."""
    series: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        series["bnkit", row["dtype"]].append((row["tensor_bytes"], row["share"]))
        for peer, figures in row["peers"].items():
            if "ratio" in figures:
                series[peer, row["dtype"]].append((row["tensor_bytes"], row["share"] / figures["ratio"]))
    return series


def _means(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    """The geometric means of size and share in each doubling of the size."""
    doublings: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for size, share in points:
        doublings[math.floor(math.log2(size))].append((size, share))
    grouped = [zip(*doublings[key], strict=True) for key in sorted(doublings)]
    sizes, shares = zip(*grouped, strict=True)
    return [statistics.geometric_mean(s) for s in sizes], [statistics.geometric_mean(s) for s in shares]


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.0f} GiB"
