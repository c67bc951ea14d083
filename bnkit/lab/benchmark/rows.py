"""The rows of the benchmark: which cases are measured, in which order, and what one row holds."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit.backend import Backend
from bnkit.lab.benchmark import measure, turns, workload
from bnkit.lab.benchmark.measure import LAYOUTS, OPS, UPDATED, UPDATES, Case, Timing
from bnkit.lab.benchmark.peers import Peer
from bnkit.lab.benchmark.workload import Arrays
from bnkit.lab.experiments import weight_scale

Row = dict[str, Any]

ROUNDS = 5
QUICK_ELEMENTS = 2**19
SMALL = Case((100, 100), 1)  # so small that Python takes most of a call: it is timed at three depths


@dataclass(frozen=True)
class Settings:
    """What is measured; each implementation takes `seconds` in a row."""

    cases: tuple[str, ...]  # names of batch-norm cases
    ops: tuple[str, ...] = tuple(OPS)  # and names in `measure.UPDATES`
    dtypes: tuple[str, ...] = ("float32",)
    backend: str | None = None
    against: tuple[str, ...] = ()
    seconds: float = 0.5
    reference: bool = True
    experiment: weight_scale.Settings | None = None  # also measured, unless None
    command: str = "bnkit bench"


class Item(NamedTuple):
    """A row before it is measured: `through` is "function", "op" or "layer"."""

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
    """The cases of `known` whose name equals or contains one of `names`, and whose layout is one of `layouts`.

    No names choose every case, and no layouts every layout. Raises ValueError if no case remains.

        >>> from bnkit.lab.benchmark import measure, rows
        >>> [case.name for case in rows.chosen_cases(measure.cases(), ["1024x"], ["flat"])]
        ['1024x4096']
    """
    for layout in layouts:
        if layout not in LAYOUTS:
            raise ValueError(f"layouts must be among {', '.join(LAYOUTS)}, got {layout!r}")
    chosen: list[Case] = [] if names else list(known)
    for name in names:
        matches = [c for c in known if c.name == name] or [c for c in known if name in c.name]
        if not matches:
            raise ValueError(
                f"cases must be among {', '.join(c.name for c in known)}, a part of one, or weight-scale; got {name!r}"
            )
        chosen += [c for c in matches if c not in chosen]
    chosen = [c for c in chosen if not layouts or c.layout in layouts]
    if quick and not names:
        chosen = [c for c in chosen if c.elements <= QUICK_ELEMENTS]
    if not chosen:
        raise ValueError(f"cases must leave one of the layouts {', '.join(layouts)}, got none")
    return chosen


def check_updates(settings: Settings) -> None:
    """ValueError if an optimizer step would be timed in a dtype that parameters do not have."""
    for op in settings.ops:
        for dtype in settings.dtypes:
            if op in UPDATES and dtype not in UPDATED:
                raise ValueError(f"dtypes must be among {', '.join(UPDATED)} with {op}, got {dtype!r}")


def plan(cases: Sequence[Case], settings: Settings) -> list[Item]:
    """The items to measure, in order."""
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
    """Measure `items`, and yield one row for each. bandwidth: of a copy, in bytes per second.

    A peer whose process has ended has no further figures; its rows hold the reason.
    """
    for (case, dtype), group in itertools.groupby(items, key=lambda item: item[:2]):
        arrays = workload.arrays(backend, case, dtype)
        for item in group:
            on_start(item)
            yield _row(item, arrays, settings, backend, peers, bandwidth)
        del arrays  # before the next case allocates


def _row(
    item: Item, arrays: Arrays, settings: Settings, backend: Backend, peers: Sequence[Peer], bandwidth: float
) -> Row:
    case, op = item.case, item.op
    public, update = item.through == "function", op in UPDATES
    if update:
        call = workload.update_call(backend, arrays, op)
    elif public:
        call = workload.function_call(arrays, case, op)
    elif item.through == "op":
        call = workload.op_call(backend, arrays, case, op)
    else:
        call = workload.layer_call(backend, arrays, case, op)
    specification = {"shape": case.shape, "axis": case.axis, "op": op, "dtype": item.dtype}
    timing, compared = turns.by_turns(
        call,
        backend,
        peers if public else (),
        {"workload": "batch_norm", **specification},
        rounds=ROUNDS,
        seconds=settings.seconds / ROUNDS,
    )
    row = _figures(item, backend, timing, bandwidth)
    if settings.reference and (public or update):
        if update:
            slow = workload.update_call(backend, arrays, op, by_reference=True)
        else:
            slow = workload.reference_call(backend, arrays, case, op)
        median = measure.summarize(_samples(slow, backend, settings.seconds)).median
        row["reference"] = {"median_us": median * 1e6, "ratio": median / timing.median}
    row["peers"] = compared
    return row


def _samples(call: Callable[[], object], backend: Backend, seconds: float) -> list[float]:
    """As many samples as fit into `seconds`; one sample of a call that takes more than a third of it."""
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
