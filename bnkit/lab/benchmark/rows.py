"""The benchmark's rows: what is measured in which order, and what one row holds."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit.backend import Backend
from bnkit.lab.benchmark import measure, turns, workload
from bnkit.lab.benchmark.measure import LAYOUTS, OPS, UPDATED, UPDATES, Case, Timing
from bnkit.lab.benchmark.peers import Peer
from bnkit.lab.experiments import weight_scale

Row = dict[str, Any]

ROUNDS = 5
QUICK_ELEMENTS = 2**19
SMALL = Case((100, 100), 1)  # where Python's share of a call shows, so that it is timed at each depth


@dataclass(frozen=True)
class Settings:
    """What is measured; `seconds` is the time of each implementation in a row."""

    cases: tuple[str, ...]  # of batch norm, by name
    ops: tuple[str, ...] = tuple(OPS)  # and those of `measure.UPDATES`
    dtypes: tuple[str, ...] = ("float32",)
    backend: str | None = None
    against: tuple[str, ...] = ()
    seconds: float = 0.5
    reference: bool = True
    experiment: weight_scale.Settings | None = None  # where it is measured too
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
            raise ValueError(
                f"cases must be among {', '.join(c.name for c in known)}, a part of one, or weight-scale; got {name!r}"
            )
        found += [c for c in matches if c not in found]
    found = [c for c in found if not layouts or c.layout in layouts]
    if quick and not names:
        found = [c for c in found if c.elements <= QUICK_ELEMENTS]
    if not found:
        raise ValueError(f"cases must leave one of the layouts {', '.join(layouts)}, got none")
    return found


def check_updates(settings: Settings) -> None:
    """ValueError where a step of an optimizer is to be timed in a dtype that no parameters have."""
    for op in settings.ops:
        for dtype in settings.dtypes:
            if op in UPDATES and dtype not in UPDATED:
                raise ValueError(f"dtypes must be among {', '.join(UPDATED)} with {op}, got {dtype!r}")


def plan(cases: Sequence[Case], settings: Settings) -> list[Item]:
    """Every row in the order in which it is measured."""
    items = []
    for case, dtype, op in itertools.product(cases, settings.dtypes, settings.ops):
        items.append(Item(case, dtype, op, "op" if op in UPDATES else "function"))
        if case == SMALL and op in OPS:
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
        if item.op in UPDATES:
            call = workload.update_call(backend, arrays, item.op)
        elif item.through == "function":
            call = workload.function_call(arrays, case, item.op)
        elif item.through == "op":
            call = workload.op_call(backend, arrays, case, item.op)
        else:
            call = workload.layer_call(backend, arrays, case, item.op)
        compared = peers if item.through == "function" else ()
        specification = {
            "workload": "batch_norm",
            "shape": case.shape,
            "axis": case.axis,
            "op": item.op,
            "dtype": dtype,
        }
        own, others = turns.by_turns(
            call, backend, compared, specification, rounds=ROUNDS, seconds=settings.seconds / ROUNDS
        )
        row = _figures(item, backend, own, bandwidth)
        if settings.reference and (item.through == "function" or item.op in UPDATES):
            if item.op in UPDATES:
                slow = workload.update_call(backend, arrays, item.op, by_reference=True)
            else:
                slow = workload.reference_call(backend, arrays, case, item.op)
            median = measure.summarize(_few(slow, backend, settings.seconds)).median
            row["reference"] = {"median_us": median * 1e6, "ratio": median / own.median}
        row["peers"] = others
        yield row


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
        **turns.microseconds(timing),
        "bytes_one_read": one,
        "bytes_two_reads": two,
        "gb_per_s": one / timing.median / 1e9,
        "share": one / timing.median / bandwidth,
        "share_two_reads": two / timing.median / bandwidth,
        "over_floor": timing.median * bandwidth / one,
        "reference": None,
    }
