"""MNIST in a directory that the user names."""

import gzip
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from mnist_files import TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, idx, small_mnist, write

from bnkit import data

pytestmark = pytest.mark.usefixtures("offline")

REAL_DIR = os.environ.get("BNKIT_DATA_DIR")


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


def test_the_hashes_are_those_of_the_files_that_the_mirrors_hold() -> None:
    if REAL_DIR is None or not (Path(REAL_DIR) / "mnist" / TRAIN_IMAGES).exists():
        pytest.skip("BNKIT_DATA_DIR names no directory whose folder mnist holds the original files")
    for name, sha256 in data.MNIST_SHA256.items():
        with io.FileIO(Path(REAL_DIR) / "mnist" / name) as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == sha256
