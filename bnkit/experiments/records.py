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
from bnkit.checkpoint import replacing

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
