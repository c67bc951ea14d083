"""Writing a file whole or not at all: a reader never meets half of it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file that takes the place of `path` once it is written and synced; on an error `path` stays as it was."""
    target = Path(path).resolve()  # through links, which stay
    check_target(target)
    try:
        with _beside(target, mode) as file:
            yield file
    except OSError as error:
        # A disk that is full names none, and nobody knows the temporary file's name.
        error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def _beside(target: Path, mode: str) -> Iterator[IO[Any]]:
    """A temporary file in the folder of `target`, which it becomes in the end."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".bnkit-", suffix=".part")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_target(path: str | os.PathLike[str]) -> None:
    """A file can be written at `path`: it is a regular file or nothing yet, in a folder that exists."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} must lie in an existing folder; make {target.parent}")
    if target.exists() and not target.is_file():
        raise OSError(f"{target} must be a file or not exist, got a folder or device; choose another name")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
