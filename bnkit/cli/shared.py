"""What the commands share: options, checks told before the work, settings as they are shown."""

import contextlib
import importlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bnkit import data as datasets


def one_of(names: Iterable[str], what: str, *, optional: bool = False) -> Any:
    """A text option that takes one of `names`, or where it is optional None."""
    listed = ", ".join(names)

    def check(value: str | None) -> str | None:
        if value not in listed.split(", ") and not (optional and value is None):
            raise typer.BadParameter(f"must be one of {listed}, got {value!r}")
        return value

    return typer.Option(callback=check, help=f"{what}: {listed}.")


DataOption = Annotated[str, one_of(datasets.LOADERS, "The dataset")]
DataDirOption = Annotated[
    Path | None, typer.Option(help="The folder that holds MNIST's files; else BNKIT_DATA_DIR, else a download.")
]
BackendOption = Annotated[
    str | None, typer.Option(help="numpy, cupy, cupy:1, auto or another; else BNKIT_BACKEND, else auto.")
]
EpochsOption = Annotated[int, typer.Option(min=1, help="Epochs of training.")]
OutOption = Annotated[Path, typer.Option(help="The folder for the results; made where it is missing.")]

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the result files of an earlier run.")]


@contextlib.contextmanager
def as_usage() -> Iterator[None]:
    """A value that an option must not have is a mistake in usage."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def need(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"the figure needs {package}; {datasets.INSTALL_DEMO}") from error


def prepare(folder: Path, option: str = "--out") -> None:
    """The folder exists and can be written to: told before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error.strerror}); choose another {option}") from error


def print_settings(name: str, settings: dict[str, Any]) -> None:
    text = f"{name}: " + ", ".join(f"{k}={_short(v)}" for k, v in settings.items())
    Console().print(text, markup=False, highlight=False)


def _short(value: Any) -> str:
    if isinstance(value, (tuple, list)) and len(value) > 6 and isinstance(value[0], float):
        return f"{value[0]:.3g} … {value[-1]:.3g} ({len(value)})"
    return str(value)
