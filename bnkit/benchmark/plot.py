"""The roofline: the share of the copy bandwidth that an op reaches, against the size of its tensor."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from bnkit.benchmark.rows import Row
from bnkit.measure import OPS

# Okabe & Ito's colours, which colour-blind readers can tell apart, each with a marker of its own.
STYLES = {
    "bnkit": ("#0072B2", "o"),
    "torch": ("#D55E00", "s"),
    "jax": ("#009E73", "^"),
    "tutorial": ("#CC79A7", "D"),
}
OTHER = ("#000000", "v")
LINES = ("-", "--", ":", "-.")  # by dtype


def plot(rows: Sequence[Row], copy_gb_per_s: float, caches: dict[str, int]) -> Any:
    """A figure with a panel for each op; ValueError where no row was measured."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["through"] == "function"]
    ops = [op for op in OPS if any(row["op"] == op for row in rows)]
    if not ops:
        raise ValueError("rows must hold at least one that was measured through the function, got none")
    columns = min(len(ops), 4 if len(ops) > 6 else 3)
    lines = -(-len(ops) // columns)
    figure = Figure(figsize=(3.9 * columns + 0.6, 3.3 * lines + 1.0), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(ops) :]:
        panel.set_visible(False)
    for panel, op in zip(panels.flat, ops, strict=False):
        _panel(panel, op, [row for row in rows if row["op"] == op], caches)
    for index, panel in enumerate(panels.flat[: len(ops)]):  # the last panel of a column shows the sizes
        panel.tick_params(labelbottom=index + columns >= len(ops))
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel("size of the tensor x")
    figure.supylabel(f"one-read bytes a second, as a share of the copy bandwidth of {copy_gb_per_s:.0f} GB/s")
    return figure


def _panel(panel: Any, op: str, rows: list[Row], caches: dict[str, int]) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    panel.set_title(op, fontsize=11)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.axhline(1, color="0.25", linewidth=1.2, label="one-read floor")
    two_reads = OPS[op].one_read / OPS[op].two_reads
    if two_reads < 1:
        panel.axhline(two_reads, color="0.25", linewidth=1, linestyle=(0, (1, 2)), label="two-read floor")
    for name, size in caches.items():
        panel.axvline(size, color="0.8", linewidth=1, zorder=0)
        panel.text(size, 0.015, f" {name}", color="0.45", fontsize=8, transform=panel.get_xaxis_transform())
    for (name, dtype), points in _series(rows).items():
        colour, marker = STYLES.get(name, OTHER)
        line = LINES[sorted({row["dtype"] for row in rows}).index(dtype) % len(LINES)]
        label = name if len({row["dtype"] for row in rows}) == 1 else f"{name} {dtype}"
        x, y = zip(*((size, share) for size, shares in sorted(points.items()) for share in shares), strict=True)
        panel.plot(x, y, marker, color=colour, markersize=4, alpha=0.55, markeredgewidth=0)
        means = {size: math.exp(sum(map(math.log, shares)) / len(shares)) for size, shares in sorted(points.items())}
        panel.plot(list(means), list(means.values()), line, color=colour, linewidth=1.4, marker=marker, markersize=4,
                   label=label)  # fmt: skip
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}" if value >= 0.01 else f"{value:.1%}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(axis="y", color="0.92", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _series(rows: list[Row]) -> dict[tuple[str, str], dict[int, list[float]]]:
    """By implementation and dtype: the shares at each size."""
    series: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, share in _shares(row):
            series[name, row["dtype"]][row["tensor_bytes"]].append(share)
    return series


def _shares(row: Row) -> Iterator[tuple[str, float]]:
    yield "bnkit", row["share"]
    for peer, found in row["peers"].items():
        if "ratio" in found:
            yield peer, row["share"] / found["ratio"]


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.0f} GiB"
