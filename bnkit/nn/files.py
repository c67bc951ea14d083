"""Files of named arrays and a JSON description: .npz, written whole or not at all, never a pickle."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from bnkit.backend import dtype_name

_DESCRIPTION = "bnkit.json"
_FORMAT = 1


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


def save(
    path: str | os.PathLike[str], kind: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write host arrays and a JSON-able description; `kind` says what they are."""
    text = json.dumps({"format": _FORMAT, "kind": kind, "description": description})
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **{_DESCRIPTION: np.frombuffer(text.encode(), np.uint8)}, **arrays)


def load(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays that `save` wrote; ValueError where the file is damaged or something else."""
    path = os.fspath(path)
    with open(path, "rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop(_DESCRIPTION).tobytes())
            found, version, description = header["kind"], header["format"], header["description"]
        except Exception as error:  # zip, zlib, NumPy and JSON each have their own for a file that is not theirs
            raise ValueError(
                f"{path} must be a file written by bnkit, and is damaged or another ({type(error).__name__})"
            ) from error
    if (found, version) != (kind, _FORMAT):
        raise ValueError(f"{path} must hold {kind!r} of format {_FORMAT}, got {found!r} of format {version}")
    return description, arrays


def check_names(own: Mapping[str, Any], arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Names and shapes agree, before any of it is written."""
    if own.keys() != arrays.keys():
        raise ValueError(f"{source} must hold {sorted(own)}, got {sorted(arrays)}")
    for name, array in own.items():
        if array is None:
            raise ValueError(f"{source} holds {name}, which this training has not; choose another file")
        if (tuple(array.shape), dtype_name(array)) != (arrays[name].shape, dtype_name(arrays[name])):
            expected = f"{dtype_name(array)} of shape {tuple(array.shape)}"
            raise ValueError(f"{source}: {name} must be {expected}, got {arrays[name].dtype} of {arrays[name].shape}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
