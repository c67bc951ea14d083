"""The benchmark's rows: what is measured in which order, and what one row holds."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit import measure
from bnkit.backend import Backend
from bnkit.benchmark import workload
from bnkit.measure import LAYOUTS, OPS, Case, Timing
from bnkit.peers import Peer, PeerError

Row = dict[str, Any]

ROUNDS = 5  # in which bnkit and its peers take turns, so that a slow moment of the machine meets all of them
QUICK_ELEMENTS = 2**19
SMALL = Case((100, 100), 1)  # where Python's share of a call shows, so that it is timed at each depth


@dataclass(frozen=True)
class Settings:
    """What is measured; `seconds` is the time of each implementation in a row."""

    cases: tuple[str, ...]  # by name
    ops: tuple[str, ...] = tuple(OPS)
    dtypes: tuple[str, ...] = ("float32",)
    backend: str | None = None
    against: tuple[str, ...] = ()
    seconds: float = 0.5
    reference: bool = True
    command: str = "bnkit bench"


class Item(NamedTuple):
    """A row to be: `through` is "function", "op" or "layer"."""

    case: Case
    dtype: str
    op: str
    through: str

    @property
    def name(self) -> str:
        label = {"function": "", "op": ", the backend's op", "layer": ", BatchNorm.forward"}[self.through]
        return f"{self.case.name} {self.dtype} {self.op}{label}"


def chosen_cases(
    known: Sequence[Case], names: Sequence[str], layouts: Sequence[str], *, quick: bool = False
) -> list[Case]:
    """Those of `known` with one of these names, or with one of these texts in their name, and of these layouts.

    No name, and no layout, chooses all. ValueError for what chooses none.
    """
    for layout in layouts:
        if layout not in LAYOUTS:
            raise ValueError(f"layouts must be among {', '.join(LAYOUTS)}, got {layout!r}")
    found: list[Case] = [] if names else list(known)
    for name in names:
        matches = [c for c in known if c.name == name] or [c for c in known if name in c.name]
        if not matches:
            raise ValueError(f"cases must be among {', '.join(c.name for c in known)}, or a part of one; got {name!r}")
        found += [c for c in matches if c not in found]
    found = [c for c in found if not layouts or c.layout in layouts]
    if quick and not names:
        found = [c for c in found if c.elements <= QUICK_ELEMENTS]
    if not found:
        raise ValueError(f"cases must leave one of the layouts {', '.join(layouts)}, got none")
    return found


def plan(cases: Sequence[Case], settings: Settings) -> list[Item]:
    """Every row in the order in which it is measured."""
    items = []
    for case, dtype, op in itertools.product(cases, settings.dtypes, settings.ops):
        items.append(Item(case, dtype, op, "function"))
        if case == SMALL:
            items.append(Item(case, dtype, op, "op"))
            if OPS[op].kind != "backward":
                items.append(Item(case, dtype, op, "layer"))
    return items


def run(
    settings: Settings,
    items: Sequence[Item],
    backend: Backend,
    peers: Sequence[Peer],
    bandwidth: float,
    *,
    on_start: Callable[[Item], None] = lambda _: None,
) -> Iterator[Row]:
    """The rows of `items`, one after the other. bandwidth: of a copy, in bytes a second.

    A peer that is not `alive` any more has no further figures, and its row the reason.
    """
    for (case, dtype), group in itertools.groupby(items, key=lambda item: item[:2]):
        yield from _rows_of(case, dtype, list(group), settings, backend, peers, bandwidth, on_start)


def _rows_of(
    case: Case,
    dtype: str,
    items: list[Item],
    settings: Settings,
    backend: Backend,
    peers: Sequence[Peer],
    bandwidth: float,
    on_start: Callable[[Item], None],
) -> Iterator[Row]:
    """A function of its own, so that the arrays of a case are gone before those of the next are made."""
    arrays = workload.arrays(backend, case, dtype)
    for item in items:
        on_start(item)
        if item.through == "function":
            call = workload.function_call(arrays, case, item.op)
        elif item.through == "op":
            call = workload.op_call(backend, arrays, case, item.op)
        else:
            call = workload.layer_call(backend, arrays, case, item.op)
        compared = peers if item.through == "function" else ()
        own, others = _by_turns(call, backend, compared, item, settings.seconds)
        row = _figures(item, backend, own, bandwidth)
        if settings.reference and item.through == "function":
            slow = workload.reference_call(backend, arrays, case, item.op)
            median = measure.summarize(_few(slow, backend, settings.seconds)).median
            row["reference"] = {"median_us": median * 1e6, "ratio": median / own.median}
        row["peers"] = {name: _with_ratio(found, own) for name, found in others.items()}
        yield row


def _by_turns(
    call: Callable[[], object], backend: Backend, peers: Sequence[Peer], item: Item, seconds: float
) -> tuple[Timing, dict[str, dict[str, Any]]]:
    """bnkit's time, and each peer's own or why it has none."""
    found: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {}
    block = seconds / ROUNDS
    for peer in peers:
        try:
            found[peer.name] = _fastest_entry(peer, item, block)
            times[peer.name] = []
        except PeerError as error:
            found[peer.name] = {"skipped": str(error)}
    own: list[float] = []
    for _ in range(ROUNDS):
        own += measure.sample(call, backend.elapsed, seconds=block, least=1)
        for peer in peers:
            if peer.name in times:
                try:
                    times[peer.name] += _measured(peer, found[peer.name]["entry"], block)
                except PeerError as error:
                    found[peer.name] = {"skipped": str(error)}
                    del times[peer.name]
    for name, values in times.items():
        found[name] |= _microseconds(measure.summarize(values))
    return measure.summarize(own), found


def _fastest_entry(peer: Peer, item: Item, seconds: float) -> dict[str, Any]:
    """Which of the peer's ways is the fastest here, and the first medians of all, or why one has none."""
    case = item.case
    specification = {"workload": "batch_norm", "shape": case.shape, "axis": case.axis, "op": item.op}
    entries = peer.ask({"prepare": specification | {"dtype": item.dtype}})["entries"]
    medians: dict[str, float] = {}
    failures = []
    for entry in entries:
        try:
            medians[entry] = measure.summarize(_measured(peer, entry, seconds)).median
        except PeerError as error:
            if not error.alive:
                raise
            failures.append(f"{entry}: {error}")
    if not medians:
        raise PeerError("; ".join(failures), alive=True)
    best = min(medians, key=medians.__getitem__)
    return {"entry": best, "tried_us": {entry: median * 1e6 for entry, median in medians.items()}}


def _measured(peer: Peer, entry: str, seconds: float) -> list[float]:
    times: list[float] = peer.ask({"measure": entry, "seconds": seconds, "least": 1})["times"]
    return times


def _few(call: Callable[[], object], backend: Backend, seconds: float) -> list[float]:
    """As many samples as fit into `seconds`; of a call that takes longer than that, the first alone."""
    first = backend.elapsed(call, 1)
    return [first] if first > seconds / 3 else measure.sample(call, backend.elapsed, seconds=seconds - first)


def _figures(item: Item, backend: Backend, timing: Timing, bandwidth: float) -> Row:
    itemsize = workload.DTYPES[item.dtype]
    one, two = (measure.bytes_moved(item.op, item.case, itemsize, one_read=one_read) for one_read in (True, False))
    return {
        "case": item.case.name,
        "layout": item.case.layout,
        "tensor_bytes": item.case.elements * itemsize,
        "op": item.op,
        "dtype": item.dtype,
        "through": item.through,
        "backend": backend.key,
        **_microseconds(timing),
        "bytes_one_read": one,
        "bytes_two_reads": two,
        "gb_per_s": one / timing.median / 1e9,
        "share": one / timing.median / bandwidth,
        "share_two_reads": two / timing.median / bandwidth,
        "over_floor": timing.median * bandwidth / one,
        "reference": None,
    }


def _microseconds(timing: Timing) -> dict[str, float]:
    return {f"{name}_us": value * 1e6 for name, value in timing._asdict().items()}


def _with_ratio(found: dict[str, Any], own: Timing) -> dict[str, Any]:
    return found if "skipped" in found else {**found, "ratio": found["median_us"] / (own.median * 1e6)}
