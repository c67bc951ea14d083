"""The file an experiment leaves: settings, versions, machine and every record, as JSON."""

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import bnkit
from bnkit.backend import Backend
from bnkit.data.files import replacing
from bnkit.lab.experiments.settings import check

Record = dict[str, Any]


def write(
    path: str | os.PathLike[str],
    settings: Any,
    records: list[Record],
    backend: Backend,
    *,
    more_versions: dict[str, str] | None = None,
    more_machine: dict[str, Any] | None = None,
) -> None:
    """Write the file whole or not at all; `settings` is a dataclass."""
    head = {
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


def read_settings(path: str | os.PathLike[str], kind: type[Any]) -> Any:
    """The settings, of the dataclass `kind`, in a file that `write` wrote; ValueError where it is not one."""
    path = os.fspath(path)
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))["settings"]
        given = {name: _plain(value) for name, value in settings.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a file that an experiment wrote, and is damaged or another ({type(error).__name__})"
        ) from error
    names = {field.name for field in dataclasses.fields(kind)}
    if given.keys() != names:
        missing, more = sorted(names - given.keys()), sorted(given.keys() - names)
        raise ValueError(
            f"{path} must hold the settings of this experiment, but lacks {missing or 'nothing'} and has besides "
            f"{more or 'nothing'}; it may be another experiment's, or of another version of bnkit"
        )
    found = kind(**given)
    try:
        check(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _plain(value: Any) -> Any:
    """What JSON made a list of, as the tuple that it was."""
    return tuple(_plain(v) for v in value) if isinstance(value, list) else value
