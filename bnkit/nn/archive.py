"""Named arrays and a JSON description in an .npz file that never holds a pickle."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from bnkit.backend import dtype_name
from bnkit.data.files import replacing

_DESCRIPTION = "bnkit.json"
_FORMAT = 1


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
