"""`bnkit info`: each backend with its device and versions, or the reason why it is not usable."""

import json
import platform
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import bnkit
from bnkit.backend import BackendError, BackendInfo, backends, get_backend


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show each backend: whether it is usable, its device, versions, threads, SIMD level and compiled kernels."""
    known = backends()
    try:
        default = get_backend().key
    except BackendError as error:
        default = str(error)
    if as_json:
        described = {
            "bnkit": bnkit.__version__,
            "python": platform.python_version(),
            "default": default,
            "backends": {name: {"usable": b.usable, "reason": b.reason, **b.details} for name, b in known.items()},
        }
        typer.echo(json.dumps(described, indent=1))
        return
    table = Table("", *known, title=f"bnkit {bnkit.__version__}, Python {platform.python_version()}")
    for title, cell in _INFO_ROWS.items():
        cells = [cell(b) if b.usable or title == "usable" else "-" for b in known.values()]
        table.add_row(title, *map(escape, cells))
    Console().print(table)
    typer.echo(f"default backend: {default}")


_INFO_ROWS: dict[str, Any] = {
    "usable": lambda b: "yes" if b.usable else f"no: {b.reason}",
    "device": lambda b: _text(b, "device"),
    "libraries": lambda b: "\n".join(f"{k} {v}" for k, v in b.details.get("libraries", {}).items()) or "-",
    "threads": lambda b: _text(b, "threads"),
    "SIMD level": lambda b: _text(b, "simd"),
    "compiled kernels": lambda b: "yes" if b.details.get("compiled_kernels") else "no",
}


def _text(backend: BackendInfo, name: str) -> str:
    value = backend.details.get(name)
    return "-" if value is None else str(value)
