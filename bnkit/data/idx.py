"""The idx file format of MNIST."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnkit.backend.messages import shown

IDX_DTYPES: dict[int, str] = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The dtype of an idx file's elements, by the third byte of the file."""


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Return the array in an idx file, compressed by gzip or not, in native byte order.

    Raises ValueError for a truncated, damaged or foreign file, and for one longer than its header says.
    Format: "The IDX file format", at the foot of Y. LeCun's MNIST page.

        >>> with open("labels", "wb") as file:  # uint8, one axis of length 3
        ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
        >>> bnkit.data.read_idx("labels")
        array([5, 0, 4], dtype=uint8)
    """
    file = as_path(path)
    try:
        content = file.read_bytes()
        # Not by the name: browsers unpack a .gz file and keep its name.
        return _parse_idx(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{os.fspath(path)} is not a whole idx file: {error}. Delete it and load again, or put a good copy there."
        ) from error


def as_path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError as error:
        raise TypeError(f"path must be a str or a path, got {shown(path)}; name a file or folder") from error


def _parse_idx(data: bytes) -> npt.NDArray[Any]:
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_DTYPES or data[3] == 0:
        codes = "/".join(f"{code:02x}" for code in IDX_DTYPES)
        raise ValueError(f"expected it to begin with 00 00, {codes}, dimensions, got {data[:16]!r}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise ValueError(f"expected a header of {header} bytes, got {len(data)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(data[4:header], ">u4"))
    dtype = np.dtype(IDX_DTYPES[data[2]])
    # math.prod: sizes from a damaged header may overflow int64.
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"expected {expected} bytes for shape {shape} of {dtype.name}, got {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))
