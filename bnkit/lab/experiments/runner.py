"""Run an experiment's parts, some at the same time, and resume a run that was interrupted."""

import contextlib
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from bnkit.lab.experiments import workers
from bnkit.lab.experiments.plan import Part, Plan, Session
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.resumption import Checkpoint, head
from bnkit.lab.experiments.settings import Settings

S = TypeVar("S", bound=Settings)
OnProgress = Callable[[int, int], None]
SAVED_EVERY = 30.0  # seconds from one saved state of a part to the next
_UPDATE = 2**24  # multiplications that take as long as the fixed cost of an update
_WORTH_PROCESSES = 2**38  # multiplications, some seconds, below which starting processes costs more than it saves
_WORTH_THREADS = 2**25  # multiplications of an update, below which threads wait for Python's lock


def run(
    plan: Callable[[S], Plan],
    settings: S,
    *,
    on_progress: OnProgress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
) -> list[Record]:
    """The records of all parts of `plan(settings)`, in their order or the plan's.

    on_progress(done, total) counts updates; the calling thread calls it.

    checkpoint: where the run keeps the records of finished parts and, every 30 seconds, the state of those under way.
    A run that finds them resumes, and has the records of a run without interruption. ValueError where they are of
    other settings, versions, another machine or other data.

    executor: runs the parts, the longest first; a worker must see this machine's files. By default a long run on the
    built-in NumPy backend has a process of loky for each of the backend's threads; without loky, and for short runs,
    the parts run in threads of this process, or one after the other.
    """
    made = plan(settings)
    backend, parts = made.backend, made.parts
    repeated = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
    if repeated:
        raise ValueError(f"settings must name each case once, got {repeated[0]!r} more than once")
    kept = Checkpoint(checkpoint, {} if checkpoint is None else head(settings, backend, made.data))
    progress = _Progress(parts, kept, on_progress)
    left = sorted((part for part in parts if part.name not in kept.done), key=lambda part: -part.effort)
    count = min(backend.threads, len(left))
    elsewhere = dataclasses.replace(settings, backend=backend.key)  # a worker must not choose another backend

    if executor is None and (count < 2 or type(backend).__module__ != "bnkit_numpy" or not _worth(left)):
        backend.run([functools.partial(_in_turn, left, kept, progress)])
    else:
        pool = workers.pool(count, processes=_effort(left) >= _WORTH_PROCESSES)
        with pool if executor is None else contextlib.nullcontext(executor) as chosen:
            share = functools.partial(workers.share, chosen, plan, elsewhere, left, kept.part, SAVED_EVERY)
            backend.run([functools.partial(share, progress.tell, progress.finish)])  # one thread for each worker
    records = [record for part in parts for record in kept.done[part.name]]
    return records if made.order is None else sorted(records, key=made.order)


def _effort(parts: Sequence[Part]) -> int:
    return sum(part.effort + _UPDATE * part.updates for part in parts)


def _worth(parts: Sequence[Part]) -> bool:
    """Whether the parts are worth running at the same time."""
    an_update = sum(part.effort for part in parts) / max(sum(part.updates for part in parts), 1)
    return an_update >= _WORTH_THREADS or _effort(parts) >= _WORTH_PROCESSES


def _in_turn(parts: Sequence[Part], kept: Checkpoint, progress: "_Progress") -> None:
    for part in parts:
        tell, file = functools.partial(progress.tell, part.name), kept.part(part.name)
        if file is None:
            session = Session(tell)
        else:
            session = Session(tell, save=file.save, every=SAVED_EVERY, resumed=file.load())
        progress.finish(part.name, part.work(session))


class _Progress:
    """The updates of each part; finished parts are kept, and every change is reported."""

    def __init__(self, parts: Sequence[Part], kept: Checkpoint, on_progress: OnProgress | None) -> None:
        self._kept, self._on_progress = kept, on_progress
        self._of = {part.name: part.updates for part in parts}
        self._updates = {name: n if name in kept.done else 0 for name, n in self._of.items()}
        self._report()

    def tell(self, name: str, updates: int) -> None:
        if self._updates[name] != updates:
            self._updates[name] = updates
            self._report()

    def finish(self, name: str, records: list[Record]) -> None:
        self._kept.finish(name, records)
        self.tell(name, self._of[name])

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(sum(self._updates.values()), sum(self._of.values()))
