"""How the learning-rate experiment gets on: a seed at a time, its groups on several threads, kept in a checkpoint."""

import dataclasses
import functools
import json
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bnkit import checkpoint as files
from bnkit.backend import get_backend
from bnkit.experiments.learning_rate_groups import Data, Group
from bnkit.experiments.records import Record

OnProgress = Callable[[int, int], None]
Checkpoint = str | os.PathLike[str] | None


def train(
    settings: Any, data: Data, *, on_progress: OnProgress | None = None, checkpoint: Checkpoint = None
) -> list[Record]:
    """The records of all seeds, in their order."""
    identity = _identity(settings, data) if checkpoint is not None else {}
    records, begun, kept = _resume(checkpoint, identity)
    steps = sorted({*settings.measured, settings.updates})
    for seed in range(begun, settings.seeds):
        groups = _groups(settings, data, seed)
        for group in groups:
            if kept:
                description, arrays = kept
                own = {n.partition("/")[2]: a for n, a in arrays.items() if n.partition("/")[0] == group.key}
                live = [tuple(cell) for cell in description["live"][group.key]]
                group.restore(description["step"], live, own, source=str(checkpoint))
        kept = None
        for until in [step for step in steps if step > groups[0].step]:
            _advance(groups, until, settings, functools.partial(_tell, on_progress, seed, settings))
            for group in groups:
                group.leave_out_the_dead()
                records += group.measure()
            if checkpoint is not None:
                _save(checkpoint, identity, records, seed, groups)
    return records


def _groups(settings: Any, data: Data, seed: int) -> list[Group]:
    """Slowest first, so that no thread starts it last."""
    activations = dict.fromkeys(activation for _, _, activation in settings.cells)
    return [Group(settings, data, a, kind, seed) for kind in (True, False) for a in activations]


def _advance(groups: list[Group], until: int, settings: Any, told: Callable[[list[Group]], None]) -> None:
    """Train each group until so many updates; a thread that is done takes the next group."""
    backend = get_backend(settings.backend)
    waiting, stop = deque(groups), threading.Event()

    def work(first: bool) -> None:
        try:
            while waiting and not stop.is_set():
                for _ in _taken(waiting).train(until):
                    if stop.is_set():
                        return
                    if first:  # the caller's own thread
                        told(groups)
        except BaseException:  # also Ctrl-C, for which the others must not be waited for
            stop.set()
            raise

    backend.run([functools.partial(work, i == 0) for i in range(min(backend.threads, len(groups)))])
    told(groups)


def _taken(waiting: deque[Group]) -> Group:
    return waiting.popleft()


def _tell(on_progress: OnProgress | None, seed: int, settings: Any, groups: list[Group]) -> None:
    if on_progress is not None:
        of_seed = settings.updates * len(groups)
        on_progress(seed * of_seed + sum(g.step for g in groups), settings.seeds * of_seed)


def _identity(settings: Any, data: Data) -> Record:
    """What must be the same for a resumed run to be the run; the data by their shapes and checksums."""
    backend = get_backend(settings.backend)
    arrays = [np.ascontiguousarray(backend.to_numpy(a)) for a in data[:4]]
    fields = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("data_dir", "backend")}
    found: Record = json.loads(json.dumps({**fields, "arrays": [[*a.shape, zlib.crc32(a.data)] for a in arrays]}))
    return found


def _resume(
    checkpoint: Checkpoint, identity: Record
) -> tuple[list[Record], int, tuple[dict[str, Any], dict[str, np.ndarray]] | None]:
    """The records so far, the seed to go on with, and its groups where some of it is done."""
    if checkpoint is None:
        return [], 0, None
    files.check_target(checkpoint)
    if not Path(checkpoint).exists():
        return [], 0, None
    description, arrays = files.load(checkpoint, "learning-rate")
    found = description.get("identity", {})
    differing = [name for name in identity if found.get(name) != identity[name]]
    if differing:
        raise ValueError(
            f"checkpoint {checkpoint} must be of the same run, but its {' and '.join(differing)} differ; "
            f"choose another file, or delete it to start anew"
        )
    return description["records"], description["seed"], (description, arrays)


def _save(
    checkpoint: str | os.PathLike[str], identity: Record, records: list[Record], seed: int, groups: list[Group]
) -> None:
    description = {
        "identity": identity,
        "records": records,
        "seed": seed,
        "step": groups[0].step,
        "live": {g.key: g.live for g in groups},
    }
    arrays = {f"{g.key}/{name}": array for g in groups for name, array in g.arrays().items()}
    Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)  # it was there at the start
    files.save(checkpoint, "learning-rate", description, arrays)
