"""Files that are written whole or not at all, so that no reader sees half a file."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file that replaces `path` after it is written and synced. On an error `path` stays as it was."""
    target = Path(path).resolve()  # follow links, and keep them
    check_target(target)
    try:
        with _beside(target, mode) as file:
            yield file
    except OSError as error:
        # A full disk names no file, and other errors name the temporary file.
        error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def _beside(target: Path, mode: str) -> Iterator[IO[Any]]:
    """A temporary file in the folder of `target`, renamed to `target` at the end."""
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
    """OSError unless `path` is in an existing folder, and is a regular file or does not exist."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} must lie in an existing folder; make {target.parent}")
    if target.exists() and not target.is_file():
        raise OSError(f"{target} must be a file or not exist, got a folder or device; choose another name")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
