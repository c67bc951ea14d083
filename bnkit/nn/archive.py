"""Files with named arrays and a JSON description: .npz without pickles."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, checks, dtype_name
from bnkit.data.files import replacing

Path = str | os.PathLike[str]
HostArrays = dict[str, np.ndarray]
_DESCRIPTION = "bnkit.json"
_FORMAT = 1


def save(path: Path, kind: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write host arrays and a JSON description, whole or not at all. kind: the type of the content, such as "mlp"."""
    text = json.dumps({"format": _FORMAT, "kind": kind, "description": description})
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **{_DESCRIPTION: np.frombuffer(text.encode(), np.uint8)}, **arrays)


def load(path: Path, kind: str) -> tuple[dict[str, Any], HostArrays]:
    """The description and the arrays that `save` wrote; ValueError for a damaged file or another kind."""
    path = os.fspath(path)
    with open(path, "rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop(_DESCRIPTION).tobytes())
            actual, version, description = header["kind"], header["format"], header["description"]
        except Exception as error:  # zip, zlib, NumPy and JSON raise different types for a foreign file
            raise ValueError(
                f"{path} must be a file written by bnkit, got a damaged or foreign file ({type(error).__name__}); "
                f"choose another file"
            ) from error
    if (actual, version) != (kind, _FORMAT):
        raise ValueError(
            f"{path} must hold {kind!r} of format {_FORMAT}, got {actual!r} of format {version}; choose another file"
        )
    return description, arrays


def check_names(targets: Mapping[str, Array | None], arrays: Mapping[str, np.ndarray], source: str) -> None:
    """ValueError that names `source` unless `arrays` have the names, shapes and dtypes of `targets`."""
    if targets.keys() != arrays.keys():
        raise ValueError(f"{source} must hold {sorted(targets)}, got {sorted(arrays)}; choose another file")
    for name, array in targets.items():
        if array is None:
            raise ValueError(f"{source} holds {name}, which this training lacks; choose another file")
        if (tuple(array.shape), dtype_name(array)) != (arrays[name].shape, dtype_name(arrays[name])):
            expected = f"{dtype_name(array)} of shape {tuple(array.shape)}"
            raise ValueError(
                f"{source}: {name} must be {expected}, got {arrays[name].dtype} of {arrays[name].shape}; choose "
                f"another file"
            )


def write_into(targets: Mapping[str, Array], arrays: Mapping[str, np.ndarray], backend: Backend, source: str) -> None:
    """Write `arrays` into the arrays of the same names in `targets`, which are on the host or on `backend`.

    Raises ValueError before any write for other names, shapes or dtypes, for a read-only array, and for a negative
    running variance. NaN is no error: a network that diverged has such statistics.
    """
    check_names(targets, arrays, source)
    for name, array in arrays.items():
        if name.endswith(".running_var") and np.any(negative := array < 0):
            raise ValueError(
                f"{source}: {name} must be at least 0, got {array[negative][0]:.3g}; "
                f"compute it by bnkit.update_statistics in the network of the file, and save the network again"
            )
    for name, target in targets.items():
        checks.check_writeable(name, target, backend)
    for name, target in targets.items():
        target[...] = arrays[name] if isinstance(target, np.ndarray) else backend.asarray(arrays[name])
