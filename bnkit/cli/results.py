"""Result files: written whole or not at all, kept where they exist, and not lost with their folder."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from bnkit.data.files import replacing

FIGURES = (".png", ".pdf", ".svg")


def refuse_existing(paths: Iterable[Path], option: str = "--out") -> None:
    """End the command with exit code 2 where one of these files exists, since it may be the only copy of a result.

    option: the one that names another place. A command without --overwrite calls this before it loads data.
    """
    existing = [str(path) for path in paths if path.is_file()]
    if existing:
        exist, them = ("already exists", "it") if len(existing) == 1 else ("already exist", "them")
        remedy = f"--overwrite replaces {them}, another {option} keeps {them}"
        typer.echo(f"bnkit: {' and '.join(existing)} {exist}; {remedy}", err=True)
        raise typer.Exit(2)


def write(results: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write each result by its function, and say where it is; a folder that went meanwhile is made again.

    OSError at the end where one lies elsewhere, since its place cannot be written any more.
    """
    said = []
    moved = []
    try:
        for path, put in results.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                put(path)
                said.append(f"wrote {path}")
            except OSError as error:
                elsewhere = Path(tempfile.mkdtemp(prefix="bnkit-")) / path.name
                put(elsewhere)
                moved.append(f"cannot write {path} ({error.strerror or error}); wrote {elsewhere} instead, move it")
    finally:
        for line in said:
            typer.echo(line)
    if moved:
        raise OSError("; ".join(moved))


def save_figure(figure: Any, path: Path, *, dpi: int) -> None:
    """Write a figure of matplotlib in the format that the suffix names."""
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=dpi)
