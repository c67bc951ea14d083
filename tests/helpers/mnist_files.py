"""Files in MNIST's format: four small ones, the idx file of any array, and where MNIST itself lies."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from bnkit import data

NAMES = list(data.MNIST_SHA256)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx(array: np.ndarray) -> bytes:
    """The idx file of an array, written from the format's description alone."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def small_mnist(seed: int = 0) -> dict[str, bytes]:
    """Four .gz files: 12 training and 10 test images."""
    rng = np.random.default_rng(seed)
    arrays = [array for n in (12, 10) for array in (rng.integers(256, size=(n, 28, 28)), np.arange(n) % 10)]
    return {name: gzip.compress(idx(a.astype(np.uint8)), mtime=0) for name, a in zip(NAMES, arrays, strict=True)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def mnist_folder():
    folder = os.environ.get("BNKIT_DATA_DIR")
    if not folder or not (Path(folder) / "mnist").is_dir():
        pytest.skip("BNKIT_DATA_DIR names no folder with MNIST")
    return folder
