"""The idx format."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mnist_files import CODES, TRAIN_IMAGES, idx, small_mnist

from bnkit import data


@settings(deadline=None)  # it writes files
@given(
    array=st.sampled_from(list(CODES)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5))
    ),
    compressed=st.booleans(),
)
def test_read_idx_gives_back_every_dtype_and_shape(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    read = data.read_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.shape == array.shape
    assert read.flags.writeable
    assert read.tobytes() == array.tobytes()  # bytes, so that a NaN's payload counts too


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 3, 10, 15, 16, 17, 400])
def test_a_truncated_file_is_named_with_a_remedy(tmp_path: Path, kept: int, compressed: bool) -> None:
    path = tmp_path / "cut.gz"
    whole = idx(np.random.default_rng(0).integers(256, size=(2, 28, 28)).astype(np.uint8))
    path.write_bytes((gzip.compress(whole) if compressed else whole)[:kept])
    with pytest.raises(ValueError, match=r"cut\.gz is not a whole idx file: .*[Dd]elete it and load again"):
        data.read_idx(path)


def test_a_file_cut_before_compression_says_how_many_bytes_it_has(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((2, 3), np.int16))[:-1]))
    with pytest.raises(ValueError, match=r"expected 24 bytes for shape \(2, 3\) of int16, got 23 bytes"):
        data.read_idx(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_trailing_bytes_are_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "long"
    whole = idx(np.arange(6, dtype=np.uint8)) + b"x"
    path.write_bytes(gzip.compress(whole) if compressed else whole)
    with pytest.raises(ValueError, match=r"long is not .* got 15 bytes"):
        data.read_idx(path)


def test_bytes_after_the_compressed_stream_are_refused(tmp_path: Path) -> None:
    (tmp_path / "long.gz").write_bytes(gzip.compress(idx(np.arange(6, dtype=np.uint8))) + b"<html>")
    with pytest.raises(ValueError, match=r"long\.gz is not a whole idx file"):
        data.read_idx(tmp_path / "long.gz")


@pytest.mark.parametrize("where", [3, 10, 30, -6])  # header, block type, data, checksum
def test_a_corrupt_compressed_file_is_named_with_a_remedy(tmp_path: Path, where: int) -> None:
    content = bytearray(small_mnist()[TRAIN_IMAGES])
    content[where] ^= 0xFF
    (tmp_path / "corrupt.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"corrupt\.gz is not a whole idx file: .*[Dd]elete it and load again"):
        data.read_idx(tmp_path / "corrupt.gz")


FOREIGN = {
    "web page": b"<!DOCTYPE html><html><body>Moved</body></html>",
    "compressed web page": gzip.compress(b"<html>Moved</html>"),
    "npy": b"\x93NUMPY\x01\x00",
    "zip": b"PK\x03\x04",
    "pickle": pickle.dumps(np.arange(3)),
    "first byte": b"\x01\0\x08\x01\0\0\0\x01x",
    "second byte": b"\0\x01\x08\x01\0\0\0\x01x",
    "unknown dtype": b"\0\0\x0a\x01\0\0\0\x01x",
    "no dimensions": b"\0\0\x08\0x",
    "255 huge dimensions": b"\0\0\x08\xff" + b"\xff" * 1020,
    "80 empty dimensions": b"\0\0\x08\x50" + b"\0" * 320,
    "empty but too large for NumPy": b"\0\0\x08\x04" + b"\0" * 4 + b"\xff" * 12,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_named_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"foreign\.gz is not a whole idx file: .*[Dd]elete it and load again"):
        data.read_idx(tmp_path / "foreign.gz")


def test_a_web_page_is_quoted_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "page.gz").write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(ValueError, match="got b'<!DOCTYPE html>"):
        data.read_idx(tmp_path / "page.gz")


def test_a_file_cut_in_its_header_says_how_long_that_is(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(idx(np.zeros((2, 28, 28), np.uint8))[:12])
    with pytest.raises(ValueError, match="expected a header of 16 bytes, got 12 bytes"):
        data.read_idx(tmp_path / "cut")


def test_sizes_whose_product_overflows_are_not_taken_for_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4))
    with pytest.raises(ValueError, match=f"expected {16 + 2**64} bytes .* got 16 bytes"):
        data.read_idx(tmp_path / "huge")
