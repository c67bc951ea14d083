"""A long experiment in parts, some at the same time: a run that was killed goes on after those that were done."""

import dataclasses
import functools
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bnkit.backend import Array, Backend
from bnkit.data.files import replacing
from bnkit.lab.experiments import processes
from bnkit.lab.experiments.records import Record, machine, versions
from bnkit.training.batches import identity

Told = Callable[[int], None]  # how many updates are done
OnProgress = Callable[[int, int], None]
_UPDATE = 2**24  # multiplications that take as long as what an update does beside its own
_WORTH_PROCESSES = 2**38  # multiplications, some seconds, below which their start costs more than they save


@dataclass(frozen=True)
class Part:
    """work(told) makes `updates` updates, tells of each, and returns records that JSON keeps as they are.

    effort: about how many multiplications that takes.
    """

    name: str
    updates: int
    effort: int
    work: Callable[[Told], list[Record]]


class Plan(NamedTuple):
    """What an experiment does by its settings: parts on a backend, and the data that their records depend on."""

    backend: Backend
    data: Sequence[Array]
    parts: Sequence[Part]


def run(
    plan: Callable[[Any], Plan],
    settings: Any,
    *,
    on_progress: OnProgress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """The records of all parts of `plan(settings)`, in their order.

    Where it pays, on the built-in NumPy backend, as many are worked on at the same time as that has threads, each in a
    process, which makes the plan anew. The longest are begun first, so that all processes end at about the same moment.
    An error or an interruption ends them. on_progress(done, total) counts updates; it is called by one thread at a
    time, whichever that is.

    checkpoint: a file that is written after each part and, where it exists, gone on from; ValueError where it is of
    other settings, versions, another machine or other data, since the records would not be those of one run.
    """
    backend, data, parts = plan(settings)
    names = [part.name for part in parts]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"settings must name each case once, got {min(repeated)!r} more than once")
    progress = _Progress(parts, {} if checkpoint is None else _head(settings, backend, data), on_progress, checkpoint)
    left = sorted((part for part in parts if part.name not in progress.done), key=lambda part: -part.effort)
    together = min(backend.threads, len(left))
    anywhere = type(backend).__module__ == "bnkit_numpy"  # the same in another process
    pays = sum(part.effort + _UPDATE * part.updates for part in left) >= _WORTH_PROCESSES
    if together > 1 and anywhere and pays:
        same = dataclasses.replace(settings, backend=backend.key)  # which another process may not choose by itself
        processes.share(plan, same, [part.name for part in left], together, progress.tell, progress.finish)
    else:
        backend.run([functools.partial(_in_turn, left, progress)])
    return [record for part in parts for record in progress.done[part.name]]


def _in_turn(parts: Sequence[Part], progress: "_Progress") -> None:
    for part in parts:
        progress.finish(part.name, part.work(functools.partial(progress.tell, part.name)))


class _Progress:
    """What is done, told on and kept; threads may call `tell` and `finish` at the same time."""

    def __init__(self, parts: Sequence[Part], head: Record, on_progress: OnProgress | None, checkpoint: Any) -> None:
        self.head, self.on_progress, self.checkpoint = head, on_progress, checkpoint
        self.done = {} if checkpoint is None else _read(Path(checkpoint), head)
        self.of = {part.name: part.updates for part in parts}
        self.updates = {name: n if name in self.done else 0 for name, n in self.of.items()}
        self.lock = threading.Lock()
        self._count()

    def tell(self, name: str, updates: int) -> None:
        with self.lock:
            self.updates[name] = updates
            self._count()

    def finish(self, name: str, records: list[Record]) -> None:
        with self.lock:
            self.done[name] = records
            if self.checkpoint is not None:
                _write(Path(self.checkpoint), self.head, self.done)
            self.updates[name] = self.of[name]
            self._count()

    def _count(self) -> None:
        if self.on_progress is not None:
            self.on_progress(sum(self.updates.values()), sum(self.of.values()))


def _head(settings: Any, backend: Backend, data: Sequence[Array]) -> Record:
    """What must be the same for a resumed run to be the run; threads change no record."""
    head = {
        "settings": dataclasses.asdict(settings),
        "versions": versions(backend),
        "machine": machine(backend) | {"threads": None},
        "data": [identity(backend, a) for a in data],
    }
    told: Record = json.loads(json.dumps(head))
    return told


def _read(path: Path, head: Record) -> dict[str, list[Record]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in head if found[name] != head[name]]
        done: dict[str, list[Record]] = found["done"]
        if not all(records and isinstance(records, list) for records in done.values()):
            raise TypeError("a part without records")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a checkpoint of an experiment, and is damaged or another; delete it"
        ) from error
    if differing:
        raise ValueError(
            f"{path} must be of the same {', '.join(head)}, but its {' and '.join(differing)} differ; delete it to "
            f"start anew, or choose another folder"
        )
    return done


def _write(path: Path, head: Record, done: dict[str, list[Record]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # it was there at the start
    with replacing(path, mode="w") as file:
        json.dump(head | {"done": done}, file, allow_nan=False)
