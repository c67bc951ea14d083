import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnkit import data

NAMES = list(data.MNIST_SHA256)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
REAL_DIR = os.environ.get("BNKIT_DATA_DIR")


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


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the caller's, no cache of the user's, no host but this one."""
    monkeypatch.delenv("BNKIT_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    resolve = socket.getaddrinfo

    def only_local(host: Any, *args: Any, **kwargs: Any) -> Any:
        assert host == "127.0.0.1", f"a test asked for {host}"
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_local)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder in which downloads are kept, empty."""
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "bnkit" / "mnist"


class Mirror:
    """A server on this machine: what it answers to each file name, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                mirror.asked.append(name)
                if name not in mirror.files:
                    self.send_error(404)
                    return
                content = mirror.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if name in mirror.cut else content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[tuple[Mirror, Mirror]]:
    """Two mirrors that serve a small MNIST whose hashes stand for the real ones."""
    pair = (Mirror(), Mirror())
    for mirror in pair:
        mirror.files = small_mnist()
    monkeypatch.setattr(data, "MIRRORS", tuple(mirror.url for mirror in pair))
    monkeypatch.setattr(data, "MNIST_SHA256", {k: hashlib.sha256(v).hexdigest() for k, v in small_mnist().items()})
    yield pair
    for mirror in pair:
        mirror.close()


# The idx format


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
    with pytest.raises(ValueError, match=r"expected 24 bytes for shape \(2, 3\) of int16, found 23 bytes"):
        data.read_idx(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_trailing_bytes_are_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "long"
    whole = idx(np.arange(6, dtype=np.uint8)) + b"x"
    path.write_bytes(gzip.compress(whole) if compressed else whole)
    with pytest.raises(ValueError, match=r"long is not .* found 15 bytes"):
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
    with pytest.raises(ValueError, match="found b'<!DOCTYPE html>"):
        data.read_idx(tmp_path / "page.gz")


def test_a_file_cut_in_its_header_says_how_long_that_is(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(idx(np.zeros((2, 28, 28), np.uint8))[:12])
    with pytest.raises(ValueError, match="expected a header of 16 bytes, found 12 bytes"):
        data.read_idx(tmp_path / "cut")


def test_sizes_whose_product_overflows_are_not_taken_for_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4))
    with pytest.raises(ValueError, match=f"expected {16 + 2**64} bytes .* found 16 bytes"):
        data.read_idx(tmp_path / "huge")


# MNIST in a directory that the user names


@pytest.mark.parametrize("folder", ["mnist", "."])
@pytest.mark.parametrize("compressed", [True, False])
def test_mnist_is_read_from_a_named_directory(tmp_path: Path, folder: str, compressed: bool) -> None:
    files = small_mnist()
    if not compressed:
        files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    write(tmp_path / folder, files)
    raw = data.load_mnist_raw(tmp_path)
    assert [a.shape for a in raw] == [(12, 28, 28), (12,), (10, 28, 28), (10,)]
    assert {a.dtype for a in raw} == {np.dtype(np.uint8)}
    x_train, t_train, x_test, t_test = data.load("mnist", path=str(tmp_path))
    assert x_train.dtype == x_test.dtype == np.float32
    assert t_train.dtype == t_test.dtype == np.int64
    np.testing.assert_array_equal(x_train, raw[0].reshape(12, 784).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(x_test, raw[2].reshape(10, 784).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(t_train, np.arange(12) % 10)
    np.testing.assert_array_equal(t_test, np.arange(10))


def test_an_unpacked_file_that_kept_its_gz_name_is_read(tmp_path: Path) -> None:
    write(tmp_path, {name: gzip.decompress(content) for name, content in small_mnist().items()})
    assert data.load("mnist", path=tmp_path).x_train.shape == (12, 784)


def test_the_argument_goes_before_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = small_mnist(1), small_mnist(2)
    write(tmp_path / "argument" / "mnist", first)
    write(tmp_path / "environment" / "mnist", second)
    monkeypatch.setenv("BNKIT_DATA_DIR", str(tmp_path / "environment"))
    from_argument = data.load_mnist_raw(tmp_path / "argument")[0]
    from_environment = data.load_mnist_raw()[0]
    assert from_argument.tobytes() == gzip.decompress(first[TRAIN_IMAGES])[16:]
    assert from_environment.tobytes() == gzip.decompress(second[TRAIN_IMAGES])[16:]


def test_the_environment_variable_is_read_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        files = small_mnist(seed)
        monkeypatch.setenv("BNKIT_DATA_DIR", str(write(tmp_path / str(seed), files)))
        assert data.load_mnist_raw()[0].tobytes() == gzip.decompress(files[TRAIN_IMAGES])[16:]


def test_a_named_directory_is_never_downloaded_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrors: tuple[Mirror, Mirror], cache: Path
) -> None:
    folder = write(tmp_path / "some" / "mnist", {TRAIN_IMAGES: small_mnist()[TRAIN_IMAGES]})
    message = rf"{TRAIN_LABELS}, {TEST_IMAGES}, {TEST_LABELS} not found in .*mnist\. Put the files there"
    with pytest.raises(FileNotFoundError, match=message):
        data.load("mnist", path=folder.parent)
    monkeypatch.setenv("BNKIT_DATA_DIR", str(folder.parent))
    with pytest.raises(FileNotFoundError, match=message) as caught:
        data.load("mnist")
    assert str(folder) in str(caught.value)
    assert [path.name for path in folder.iterdir()] == [TRAIN_IMAGES]
    assert not cache.exists()
    assert not mirrors[0].asked
    assert not mirrors[1].asked


def test_a_named_directory_that_does_not_exist_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{TRAIN_IMAGES}.* not found in .*nowhere"):
        data.load("mnist", path=tmp_path / "nowhere")


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 10, 4, 5, 6, 7, 8, 9], np.uint8)
    write(tmp_path, small_mnist() | {TEST_LABELS: idx(labels)})
    with pytest.raises(ValueError, match=f"{TEST_LABELS} must hold labels from 0 to 9, got 10 at index 3.*Delete"):
        data.load("mnist", path=tmp_path)


def test_images_and_labels_of_different_counts_are_refused(tmp_path: Path) -> None:
    files = small_mnist()
    write(tmp_path, files | {TRAIN_LABELS: files[TEST_LABELS]})
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES} holds 12 images, but .*{TRAIN_LABELS} holds 10 labels"):
        data.load("mnist", path=tmp_path)


@pytest.mark.parametrize("shape", [(12, 27, 28), (12, 28, 27), (12, 784), (12,)])
def test_images_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write(tmp_path, small_mnist() | {TRAIN_IMAGES: idx(np.zeros(shape, np.uint8))})
    with pytest.raises(ValueError, match=rf"{TRAIN_IMAGES} must hold uint8 of shape \(N, 28, 28\)"):
        data.load("mnist", path=tmp_path)


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TRAIN_LABELS])
def test_mnist_files_of_another_dtype_are_refused(tmp_path: Path, name: str) -> None:
    shape = (12, 28, 28) if name == TRAIN_IMAGES else (12,)
    write(tmp_path, small_mnist() | {name: idx(np.zeros(shape, np.int8))})
    with pytest.raises(ValueError, match=f"{name} must hold uint8 of shape .*, got int8"):
        data.load("mnist", path=tmp_path)


@pytest.mark.parametrize("shape", [(0,), (12, 1)])
def test_labels_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write(tmp_path, small_mnist() | {TRAIN_LABELS: idx(np.zeros(shape, np.uint8))})
    with pytest.raises(ValueError, match=rf"{TRAIN_LABELS} must hold uint8 of shape \(N,\), N > 0"):
        data.load("mnist", path=tmp_path)


@pytest.mark.skipif(
    REAL_DIR is None or not any(Path(REAL_DIR).glob("**/t10k-labels-idx1-ubyte*")),
    reason="BNKIT_DATA_DIR names no directory that holds MNIST",
)
def test_the_real_mnist_has_its_known_counts_and_sums() -> None:
    x_train, t_train, x_test, t_test = data.load_mnist_raw(REAL_DIR)
    assert x_train.shape == (60000, 28, 28)
    assert x_test.shape == (10000, 28, 28)
    assert np.bincount(t_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # Over 255 and the number of pixels, the means that everyone knows: 0.1307 and 0.1325.
    assert int(x_train.sum(dtype=np.int64)) == 1567298545
    assert int(x_test.sum(dtype=np.int64)) == 264923200
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    dataset = data.load("mnist", path=REAL_DIR)
    assert dataset.classes == 10
    assert dataset.x_train.min() == 0
    assert dataset.x_train.max() == 1


# MNIST by download


def test_a_download_fills_the_cache_and_is_used_again(
    mirrors: tuple[Mirror, Mirror], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = data.load("mnist")
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == small_mnist()
    assert mirrors[0].asked == NAMES
    assert mirrors[1].asked == []
    assert capfd.readouterr() == ("", "")
    for mirror in mirrors:
        mirror.files = {}
    second = data.load("mnist")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    assert mirrors[0].asked == NAMES


def test_a_download_is_not_logged_and_leaves_the_log_level_of_pooch_as_it_was(mirrors: tuple[Mirror, Mirror]) -> None:
    logger = pytest.importorskip("pooch").get_logger()
    before = logger.level
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        data.load("mnist")
        assert logger.level == logging.DEBUG
        assert stream.getvalue() == ""
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.mark.parametrize("fault", ["absent", "cut", "wrong", "down"])
def test_the_second_mirror_is_tried_where_the_first_fails(mirrors: tuple[Mirror, Mirror], fault: str) -> None:
    first, second = mirrors
    if fault == "absent":
        first.files = {}
    elif fault == "cut":
        first.cut = set(NAMES)
    elif fault == "wrong":
        first.files = dict.fromkeys(NAMES, b"<html>Sign in</html>")
    else:
        first.close()
    assert data.load("mnist").x_train.shape == (12, 784)
    assert second.asked == NAMES


@pytest.mark.parametrize("fault", ["absent", "cut", "down"])
def test_a_download_that_fails_is_one_error_with_a_remedy_and_leaves_no_file(
    mirrors: tuple[Mirror, Mirror], cache: Path, fault: str
) -> None:
    for mirror in mirrors:
        if fault == "absent":
            mirror.files = {}
        elif fault == "cut":
            mirror.cut = {TRAIN_IMAGES}
        else:
            mirror.close()
    with pytest.raises(ConnectionError, match=f"cannot download MNIST's {TRAIN_IMAGES}") as caught:
        data.load("mnist")
    message = str(caught.value)
    assert "BNKIT_DATA_DIR" in message
    assert "--data-dir" in message
    assert all(name in message for name in NAMES)
    assert all(mirror.url in message for mirror in mirrors)
    assert "\n" not in message
    assert caught.value.__cause__ is not None
    assert list(cache.iterdir()) == []


def test_a_download_cut_at_a_later_file_keeps_the_whole_ones(mirrors: tuple[Mirror, Mirror], cache: Path) -> None:
    for mirror in mirrors:
        mirror.cut = {TEST_IMAGES}
    with pytest.raises(ConnectionError, match=TEST_IMAGES):
        data.load("mnist")
    assert sorted(path.name for path in cache.iterdir()) == sorted([TRAIN_IMAGES, TRAIN_LABELS])
    mirrors[0].cut = set()
    data.load("mnist")
    assert mirrors[0].asked == [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_IMAGES, TEST_LABELS]


def test_wrong_content_from_every_mirror_is_a_value_error_and_leaves_no_file(
    mirrors: tuple[Mirror, Mirror], cache: Path
) -> None:
    for mirror in mirrors:
        mirror.files = small_mnist(seed=5)
    with pytest.raises(ValueError, match=f"no mirror gave MNIST's {TRAIN_IMAGES} with the right SHA-256.*BNKIT_DATA_D"):
        data.load("mnist")
    assert list(cache.iterdir()) == []


def test_one_mirror_down_and_wrong_content_from_the_other_is_a_connection_error(mirrors: tuple[Mirror, Mirror]) -> None:
    mirrors[0].close()
    mirrors[1].files = small_mnist(seed=5)
    with pytest.raises(ConnectionError, match=r"cannot download MNIST's .*SHA256 hash"):
        data.load("mnist")


def test_a_damaged_file_in_the_cache_is_downloaded_again(mirrors: tuple[Mirror, Mirror], cache: Path) -> None:
    write(cache, small_mnist() | {TEST_LABELS: b"half of it"})
    data.load("mnist")
    assert mirrors[0].asked == [TEST_LABELS]
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == small_mnist()


def test_an_empty_environment_variable_counts_as_unset(
    mirrors: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNKIT_DATA_DIR", "")
    assert data.load("mnist").x_train.shape == (12, 784)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(mirrors: tuple[Mirror, Mirror], cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder belongs")
    with pytest.raises(OSError, match=r"cannot write .* into the cache .*BNKIT_DATA_DIR"):
        data.load("mnist")
    assert mirrors[0].asked == []


@pytest.mark.parametrize(("name", "package"), [("mnist", "pooch"), ("digits", "sklearn.datasets")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package} .*pip install 'bnkit\[demo\]'"):
        data.load(name)


# The datasets that need no file


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_a_dataset_is_in_range_and_the_same_at_each_load(name: str) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    first, second = data.load(name), data.load(name)
    assert first.classes == 10
    for x, t in ((first.x_train, first.t_train), (first.x_test, first.t_test)):
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        assert x.shape == (len(t), 64)
        assert t.dtype == np.int64
        assert 0 <= x.min() < x.max() <= 1
        assert np.unique(t).tolist() == list(range(10))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_digits_are_scikit_learns_and_no_row_is_in_both_parts() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    x_train, t_train, x_test, t_test = data.load("digits")
    assert x_train.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    x = np.concatenate([x_train, x_test])
    labelled = np.column_stack([x * 16, np.concatenate([t_train, t_test])]).astype(int)
    expected = np.column_stack([bunch.data, bunch.target]).astype(int)
    # No two of the 1,797 rows are equal, so equal sorted rows mean that each is there once, in one part.
    assert len(np.unique(expected, axis=0)) == 1797
    assert sorted(labelled.tolist()) == sorted(expected.tolist())


def test_the_split_of_digits_is_the_documented_one() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    order = np.random.default_rng(0).permutation(1797)
    dataset = data.load("digits")
    np.testing.assert_array_equal(dataset.x_train, bunch.data[order[:1437]].astype(np.float32) / 16)
    np.testing.assert_array_equal(dataset.t_test, bunch.target[order[1437:]])
    assert dataset.t_train[:10].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]


def test_synthetic_has_the_same_bits_on_every_machine() -> None:
    dataset = data.load("synthetic")
    assert dataset.x_train.shape == (1000, 64)
    assert dataset.x_test.shape == (500, 64)
    digest = hashlib.sha256(b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in dataset))
    assert digest.hexdigest() == "e44b20d0be96ec2381e5ef6336360ba9ba5f41f0f73bdb0d0dbfc372e1c56f0a"


def test_synthetic_is_learnable_by_a_linear_model_but_not_wholly() -> None:
    x_train, t_train, x_test, t_test = (array.astype(float) for array in data.load("synthetic"))
    onehot = np.eye(10)[t_train.astype(int)]
    weights = np.linalg.lstsq(np.column_stack([x_train, np.ones(1000)]), onehot, rcond=None)[0]
    accuracy = np.mean(np.argmax(np.column_stack([x_test, np.ones(500)]) @ weights, axis=1) == t_test)
    assert 0.75 < accuracy < 0.95  # 0.1 is chance


# The public face


@pytest.mark.parametrize("name", ["cifar", "MNIST", ""])
def test_an_unknown_name_is_refused_with_the_legal_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"name must be one of 'mnist', 'digits', 'synthetic', got '{name}'"):
        data.load(name)


def test_a_dataset_shows_shapes_and_no_data() -> None:
    expected = "Dataset(x_train=(1000, 64), t_train=(1000,), x_test=(500, 64), t_test=(500,))"
    assert repr(data.load("synthetic")) == expected


def test_the_hashes_are_those_of_the_files_that_the_mirrors_hold() -> None:
    if REAL_DIR is None or not (Path(REAL_DIR) / "mnist" / TRAIN_IMAGES).exists():
        pytest.skip("BNKIT_DATA_DIR names no directory whose folder mnist holds the original files")
    for name, sha256 in data.MNIST_SHA256.items():
        with io.FileIO(Path(REAL_DIR) / "mnist" / name) as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == sha256
