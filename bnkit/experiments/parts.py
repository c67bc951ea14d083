"""A long experiment in parts, some at the same time: a run that was killed goes on after those that were done."""

import dataclasses
import functools
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnkit.backend import Array, Backend
from bnkit.batches import identity
from bnkit.checkpoint import replacing
from bnkit.experiments.records import Record, machine, versions

Told = Callable[[int], None]  # how many updates are done; it raises where the part must end
OnProgress = Callable[[int, int], None]
# Multiplications of an update below which threads wait for Python's lock longer than they work at the same time.
_WORTH_A_THREAD = 2**23


@dataclass(frozen=True)
class Part:
    """work(told) makes `updates` updates, tells of each, and returns records that JSON keeps as they are.

    effort: about how many multiplications that takes.
    """

    name: str
    updates: int
    effort: int
    work: Callable[[Told], list[Record]]


def run(
    parts: Sequence[Part],
    settings: Any,
    backend: Backend,
    *,
    data: Sequence[Array] = (),
    on_progress: OnProgress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """The records of all parts, in their order; where it pays, the backend works on several parts at the same time.

    The longest are begun first, so that all threads end at about the same moment. An error or an interruption in one of
    them ends the others at their next update. on_progress(done, total) counts updates; it is called by one thread at a
    time, whichever that is. Meanwhile other threads' calls of `backend.run` wait.

    checkpoint: a file that is written after each part and, where it exists, gone on from; ValueError where it is of
    other settings, versions, another machine or other `data`, since the records would not be those of one run.
    """
    names = [part.name for part in parts]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"settings must name each case once, got {min(repeated)!r} more than once")
    crew = _Crew(parts, {} if checkpoint is None else _head(settings, backend, data), on_progress, checkpoint)
    pays = sum(part.effort for part in crew.left) >= _WORTH_A_THREAD * sum(part.updates for part in crew.left)
    backend.run([crew.work] * min(backend.threads if pays else 1, len(crew.left)))
    return [record for part in parts for record in crew.done[part.name]]


class _Stopped(BaseException):
    """Raised in a part that must end because of what another thread raises."""


class _Crew:
    """What the threads share: the parts that are left, and what is done. `over`: all of it is, or none must go on."""

    def __init__(self, parts: Sequence[Part], head: Record, on_progress: OnProgress | None, checkpoint: Any) -> None:
        self.parts, self.head, self.on_progress, self.checkpoint = parts, head, on_progress, checkpoint
        self.done = {} if checkpoint is None else _read(Path(checkpoint), head)
        self.left = sorted((part for part in parts if part.name not in self.done), key=lambda part: -part.effort)
        self.updates = {part.name: part.updates if part.name in self.done else 0 for part in parts}
        self.lock, self.over = threading.Lock(), threading.Event()
        self._count()

    def work(self) -> None:
        """Work on one part after the other until there is none; then wait for the other threads'.

        The thread that hears of an interruption must be here to tell the others of it.
        """
        try:
            while (part := self._next()) is not None:
                self._finish(part, part.work(functools.partial(self._tell, part)))
            while not self.over.wait(timeout=1):  # on Windows an interruption is heard between waits
                pass
        except _Stopped:
            pass
        except BaseException:
            self.over.set()
            raise

    def _next(self) -> Part | None:
        with self.lock:
            return self.left.pop(0) if self.left and not self.over.is_set() else None

    def _tell(self, part: Part, updates: int) -> None:
        with self.lock:
            if self.over.is_set():
                raise _Stopped
            self.updates[part.name] = updates
            self._count()

    def _finish(self, part: Part, records: list[Record]) -> None:
        with self.lock:
            self.done[part.name] = records
            if self.checkpoint is not None:
                _write(Path(self.checkpoint), self.head, self.done)
            self.updates[part.name] = part.updates
            self._count()
            if all(part.name in self.done for part in self.parts):
                self.over.set()

    def _count(self) -> None:
        if self.on_progress is not None:
            self.on_progress(sum(self.updates.values()), sum(part.updates for part in self.parts))


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
