"""The benchmark's rows and summary as lines of text."""

from collections.abc import Sequence

from bnkit.lab.benchmark import summary
from bnkit.lab.benchmark.rows import Row

_LEFT = {"case": 18, "op": 27, "dtype": 8}
_RIGHT = {"µs": 10, "quartiles": 19, "GB/s": 6, "share": 6, "/floor": 7, "ref": 7}
LEGEND = (
    "share: GB/s over the copy bandwidth. GB/s counts the bytes that the op must move if it reads its inputs once.",
    "/floor: the time over the time of a copy of these bytes.",
    "ref and each peer: the time of the reference op or the peer over bnkit's; above 1, bnkit is faster.",
)
_DEPTH = {"function": "", "op": " (op)", "layer": " (layer)", "experiment": ""}


def head(peers: Sequence[str]) -> str:
    return _join([*_LEFT], [*_RIGHT, *peers])


def line(row: Row, peers: Sequence[str]) -> str:
    """The row as text. The columns of the reference ops and the peers show their time / bnkit's."""
    ratios = [None if row["reference"] is None else row["reference"]["ratio"]]
    ratios += [summary.ratio(row, peer) for peer in peers]
    figures = [f"{row['median_us']:.1f}", f"{row['low_us']:.1f}–{row['high_us']:.1f}"]
    figures += [_figure(row["gb_per_s"], ".1f"), _figure(row["share"], ".0%"), _figure(row["over_floor"], ".2f")]
    figures += ["" if ratio is None else f"{ratio:.2f}×" for ratio in ratios]
    return _join([row["case"], row["op"] + _DEPTH[row["through"]], row["dtype"]], figures)


def products_line(row: Row) -> str:
    """The rate of the experiment's matrix products, as a line."""
    return (
        f"{row['case']}: {row['flops'] / 1e9:.0f} GFLOP of products, {row['gflop_per_s']:.1f} GFLOP/s; large ones "
        f"reach {row['product_gflop_per_s']:.1f} GFLOP/s: {row['share_of_products']:.0%} of the products' floor"
    )


def newly_lost(rows: Sequence[Row]) -> list[str]:
    """One line for each peer without a figure in the last row, unless an earlier row had the same reason."""
    earlier = {(name, figures.get("skipped")) for row in rows[:-1] for name, figures in row["peers"].items()}
    return [
        f"{name}: no figure, {figures['skipped']}"
        for name, figures in rows[-1]["peers"].items()
        if "skipped" in figures and (name, figures["skipped"]) not in earlier
    ]


def summary_line(rows: Sequence[Row], peer: str) -> str:
    """The geometric mean and the worst row of a peer, as a line."""
    result = summary.against(rows, peer)
    if result is None:
        return f"{peer}: no figure in any row"
    worst = result.worst
    return (
        f"{peer} / bnkit: geometric mean {result.geometric_mean:.2f} over {result.rows} rows; "
        f"worst {summary.ratio(worst, peer):.2f}, {worst['op']} {worst['dtype']} {worst['case']} "
        f"({worst['peers'][peer]['entry']})"
    )


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _join(left: Sequence[str], right: Sequence[str]) -> str:
    widths = [*_RIGHT.values(), *[10] * len(right)]
    texts = [f"{text:{width}}" for text, width in zip(left, _LEFT.values(), strict=True)]
    return " ".join([*texts, *(f"{text:>{width}}" for text, width in zip(right, widths, strict=False))])
