"""A long experiment in parts: what is done is kept in a file, and a run that was killed goes on after it."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnkit.checkpoint import replacing
from bnkit.experiments.records import Record

Told = Callable[[int], None]  # how many updates are done
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Part:
    """work(told) makes `updates` updates and returns records that JSON keeps as they are."""

    name: str
    updates: int
    work: Callable[[Told], list[Record]]


def run(
    parts: Sequence[Part],
    settings: Any,
    *,
    on_progress: OnProgress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Record]:
    """The records of all parts; on_progress(done, total) counts updates.

    checkpoint: a file that is written after each part and, where it exists, gone on from; ValueError where it is of
    other settings.
    """
    done = {} if checkpoint is None else _read(Path(checkpoint), settings)
    before, total = 0, sum(part.updates for part in parts)
    for part in parts:
        if part.name not in done:
            done[part.name] = part.work(functools.partial(_tell, on_progress, before, total))
            if checkpoint is not None:
                _write(Path(checkpoint), settings, done)
        before += part.updates
        _tell(on_progress, before, total, 0)
    return [record for part in parts for record in done[part.name]]


def _tell(on_progress: OnProgress | None, before: int, total: int, done: int) -> None:
    if on_progress is not None:
        on_progress(before + done, total)


def _read(path: Path, settings: Any) -> dict[str, list[Record]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept, done = found["settings"], found["done"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a checkpoint of an experiment, and is damaged or another; delete it"
        ) from error
    if kept != json.loads(json.dumps(dataclasses.asdict(settings))):
        raise ValueError(f"{path} must be of the same settings; delete it to start anew, or choose another folder")
    records: dict[str, list[Record]] = done
    return records


def _write(path: Path, settings: Any, done: dict[str, list[Record]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # it was there at the start
    with replacing(path, mode="w") as file:
        json.dump({"settings": dataclasses.asdict(settings), "done": done}, file, allow_nan=False)
