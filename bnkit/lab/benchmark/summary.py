"""What a run comes to against each peer."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from bnkit.lab.benchmark.rows import Row


class Summary(NamedTuple):
    """Over the rows in which the peer has a figure: peer's time / bnkit's."""

    rows: int
    geometric_mean: float
    worst: Row


def peers_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["peers"]))


def ratio(row: Row, peer: str) -> float | None:
    """None where the peer has no figure in this row."""
    found: dict[str, Any] = row["peers"].get(peer, {})
    return found.get("ratio")


def against(rows: Sequence[Row], peer: str) -> Summary | None:
    """None where the peer has no figure at all."""
    ratios = [(value, row) for row in rows if (value := ratio(row, peer)) is not None]
    if not ratios:
        return None
    mean = statistics.geometric_mean(value for value, _ in ratios)
    return Summary(len(ratios), mean, min(ratios, key=lambda pair: pair[0])[1])
