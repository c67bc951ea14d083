"""The file of results: the experiment's name, its settings, versions, machine and every record, as JSON."""

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import bnkit
from bnkit.backend import Backend
from bnkit.data.files import replacing
from bnkit.lab.experiments.settings import Settings, check

Record = dict[str, Any]
S = TypeVar("S", bound=Settings)
FORMAT = 1


def write(
    path: str | os.PathLike[str],
    settings: Any,
    records: list[Record],
    backend: Backend,
    *,
    experiment: str | None = None,
    more_versions: dict[str, str] | None = None,
    more_machine: dict[str, Any] | None = None,
) -> None:
    """Write the file whole or not at all; `settings` is a dataclass. experiment: its name, for an experiment's file."""
    head = {
        **({} if experiment is None else {"experiment": experiment, "format": FORMAT}),
        "settings": dataclasses.asdict(settings),
        "versions": versions(backend) | (more_versions or {}),
        "machine": machine(backend) | (more_machine or {}),
    }
    parts = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in head.items()]
    rows = ",\n".join(json.dumps(record, allow_nan=False) for record in records)  # a line each, for whoever reads it
    parts.append(f'"records": [\n{rows}\n]')
    with replacing(path, mode="w") as file:
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


def versions(backend: Backend) -> dict[str, str]:
    return {
        "bnkit": bnkit.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **backend.details().get("libraries", {}),
    }


def machine(backend: Backend) -> dict[str, Any]:
    details = backend.details()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "backend": backend.key,
        **{name: details.get(name) for name in ("device", "threads", "simd", "compiled_kernels")},
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a file that `write` wrote; ValueError where it is damaged, another file or of a later format."""
    path = os.fspath(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # neither UTF-8 nor JSON
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise damaged(path, "no settings")
    if content.get("format", FORMAT) != FORMAT:  # older files have no such key
        raise ValueError(f"{path} must have format {FORMAT}, got {content['format']!r}; read it with a later bnkit")
    return content


def read_settings(path: str | os.PathLike[str], kind: type[S], experiment: str | None = None) -> S:
    """The settings in the file, of the dataclass `kind`; ValueError for the file of another experiment."""
    return settings_of(read(path), path, kind, experiment)


def settings_of(
    content: dict[str, Any], path: str | os.PathLike[str], kind: type[S], experiment: str | None = None
) -> S:
    """`read_settings` of a content that is read already. experiment: the name that the file must have, if any."""
    path, name = os.fspath(path), content.get("experiment")  # older files have none
    if None not in (name, experiment) and name != experiment:
        raise ValueError(f"{path} must be a file of {experiment}, got one of {name}; it may be another experiment's")
    values = {field: _as_tuples(value) for field, value in content["settings"].items()}
    fields = {field.name for field in dataclasses.fields(kind)}
    if values.keys() != fields:
        missing, more = sorted(fields - values.keys()), sorted(values.keys() - fields)
        raise ValueError(
            f"{path} must hold the settings of this experiment, but lacks {missing or 'nothing'} and has besides "
            f"{more or 'nothing'}; it may be another experiment's, or of another version of bnkit"
        )
    settings = kind(**values)
    try:
        check(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def damaged(path: str | os.PathLike[str], why: str) -> ValueError:
    return ValueError(f"{os.fspath(path)} must be a file that an experiment wrote, and is damaged or another ({why})")


def _as_tuples(value: Any) -> Any:
    """The value with tuples in place of lists; JSON has no tuples."""
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list) else value
