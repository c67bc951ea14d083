"""Batch norm in other libraries, each in its fastest usual form. The values are not compared here."""

import importlib
from collections.abc import Callable
from typing import Any

from bnkit.lab.benchmark.measure import Case

Calls = dict[str, Callable[[], object]]


def prepare(peer: str, specification: dict[str, Any]) -> Calls:
    """The peer's calls of `op` on arrays of `shape` and `dtype` with the statistics of `axis`, by name."""
    axis = specification["axis"]
    case = Case(tuple(specification["shape"]), axis if isinstance(axis, int) else tuple(axis))
    module = importlib.import_module(f"bnkit.lab.benchmark.peers.batch_norm_{peer.replace('-', '_')}")
    calls: Calls = module.calls(case, specification["op"], specification["dtype"])
    return calls
