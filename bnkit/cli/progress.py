"""The progress of a long command: a bar on a terminal, and elsewhere a line on stderr from time to time."""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 10.0  # seconds from one line to the next; a command that ends sooner prints none


class Tell(Protocol):
    """Report how much is done; None keeps the last total and text."""

    def __call__(self, done: int, total: int | None = None, text: str | None = None) -> None: ...


@contextlib.contextmanager
def progress(text: str, unit: str, *, total: int | None = None, console: Console | None = None) -> Iterator[Tell]:
    """Show progress inside this context; the work reports it through the yielded function.

    text: what is being done. unit: what `total` counts, in the plural. console: where the command prints meanwhile,
    which gets the bar if it is a terminal; else stderr gets it, or the lines.
    """
    shown = [each for each in (console, Console(stderr=True)) if each is not None and each.is_terminal]
    if not shown:
        with contextlib.closing(_Lines(text, unit, total)) as lines:
            yield lines.tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=shown[0], transient=True) as bar:
        task = bar.add_task(text, total=total)

        def tell(done: int, total: int | None = None, text: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=text)

        yield tell


class _Lines:
    """A thread that prints the progress every `EVERY` seconds until `close`, even without a new report."""

    def __init__(self, text: str, unit: str, total: int | None) -> None:
        self._text, self._unit, self._done, self._total = text, unit, 0, total
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def tell(self, done: int, total: int | None = None, text: str | None = None) -> None:
        self._done = done
        self._total = self._total if total is None else total
        self._text = self._text if text is None else text

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _speak(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more, which must not end the work
            while not self._over.wait(EVERY):
                of = "" if self._total is None else f" of {self._total:,}"
                elapsed = timedelta(seconds=int(time.monotonic() - self._begun))
                typer.echo(f"bnkit: {self._done:,}{of} {self._unit} in {elapsed} ({self._text})", err=True)
