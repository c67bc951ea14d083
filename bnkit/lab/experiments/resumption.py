"""What a run keeps on disk to resume from: the records of finished parts, and the state of each part under way.

The file `PATH` holds the records; `PATH.part-…` holds the state of one part. Both name the run that they belong to.
"""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bnkit.backend import Array, Backend
from bnkit.data.files import replacing
from bnkit.lab.experiments.plan import State
from bnkit.lab.experiments.records import Record, machine, versions
from bnkit.lab.experiments.settings import Settings
from bnkit.nn import archive
from bnkit.training.batches import identity

_KIND = "part of an experiment"
_ALL = "part-*"


def head(settings: Settings, backend: Backend, data: Sequence[Array]) -> Record:
    """What a resumed run must share with the interrupted one; the number of threads changes no record."""
    shared = {
        "settings": asdict(settings),
        "versions": versions(backend),
        "machine": machine(backend) | {"threads": None},
        "data": [identity(backend, a) for a in data],
    }
    as_stored: Record = json.loads(json.dumps(shared))
    return as_stored


def files(path: str | os.PathLike[str]) -> list[Path]:
    """The existing files of the checkpoint at `path`."""
    path = Path(path)
    return [p for p in (path, *sorted(path.parent.glob(f"{path.name}.{_ALL}"))) if p.exists()]


def summary(path: str | os.PathLike[str]) -> str:
    """What the checkpoint at `path` holds, in words; empty where it holds nothing."""
    path = Path(path)
    under_way = [file for file in files(path) if file != path]
    finished = len(json.loads(path.read_text(encoding="utf-8"))["done"]) if path.exists() else 0
    counts = {"finished": finished, "unfinished": len(under_way)}
    return " and ".join(f"{n} {kind} part{'s' * (n != 1)}" for kind, n in counts.items() if n)


def remove(path: str | os.PathLike[str]) -> None:
    for file in files(path):
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class PartFile:
    """The state of the part `name`, in a separate file, which the process that trains the part writes."""

    path: Path
    head: Record
    name: str

    def load(self) -> State | None:
        """The state, or None where nothing is saved; ValueError where the file is damaged or of another run."""
        if not self.path.exists():
            return None
        try:
            notes, arrays = archive.load(self.path, _KIND)
            differing = _differing(notes["run"], self.head)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self.path) from error
        if differing:
            raise _of_another_run(self.path, self.head, differing)
        return State(notes["part"], arrays)

    def save(self, state: State) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)  # it existed at the start
        archive.save(self.path, _KIND, {"run": self.head, "part": state.notes}, state.arrays)


class Checkpoint:
    """The records of finished parts by name, in the file at `path` if there is one."""

    def __init__(self, path: str | os.PathLike[str] | None, head: Record) -> None:
        self.path = None if path is None else Path(path)
        self.head = head
        self.done: dict[str, list[Record]] = {} if self.path is None else _read(self.path, head)

    def part(self, name: str) -> PartFile | None:
        if self.path is None:
            return None
        place = self.path.with_name(f"{self.path.name}.{_ALL[:-1]}{zlib.crc32(name.encode()):08x}")
        return PartFile(place, self.head, name)

    def finish(self, name: str, records: list[Record]) -> None:
        """Keep the records of a finished part, whose state is of no more use."""
        self.done[name] = records
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)  # it existed at the start
        with replacing(self.path, mode="w") as file:
            json.dump(self.head | {"done": self.done}, file, allow_nan=False)
        part = self.part(name)
        assert part is not None
        part.path.unlink(missing_ok=True)


def _read(path: Path, head: Record) -> dict[str, list[Record]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        differing = _differing(content, head)
        done: dict[str, list[Record]] = content["done"]
        if not all(records and isinstance(records, list) for records in done.values()):
            raise TypeError("a part without records")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path) from error
    if differing:
        raise _of_another_run(path, head, differing)
    return done


def _differing(content: Record, head: Record) -> list[str]:
    return [name for name in head if content[name] != head[name]]


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} must be a checkpoint of an experiment, and is damaged or another; delete it")


def _of_another_run(path: Path, head: Record, differing: list[str]) -> ValueError:
    return ValueError(
        f"{path} must be of the same {', '.join(head)}, but its {' and '.join(differing)} differ; delete it to start "
        f"anew, or choose another folder"
    )
