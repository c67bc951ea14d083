"""How bnkit compares with each peer over all rows."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from bnkit.lab.benchmark.rows import Row


class Summary(NamedTuple):
    """The ratio of the peer's time to bnkit's, over the rows in which the peer has a figure."""

    rows: int
    geometric_mean: float
    worst: Row


def ratio(row: Row, peer: str) -> float | None:
    """The peer's time / bnkit's, or None if the peer has no figure in this row."""
    figures: dict[str, Any] = row["peers"].get(peer, {})
    return figures.get("ratio")


def against(rows: Sequence[Row], peer: str) -> Summary | None:
    """The summary, or None if the peer has no figure in any row."""
    ratios = [(value, row) for row in rows if (value := ratio(row, peer)) is not None]
    if not ratios:
        return None
    mean = statistics.geometric_mean(value for value, _ in ratios)
    return Summary(len(ratios), mean, min(ratios, key=lambda pair: pair[0])[1])
