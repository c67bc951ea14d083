"""Datasets as host NumPy arrays: MNIST, scikit-learn's digits, and a synthetic one.

MNIST comes from a directory that the caller or `BNKIT_DATA_DIR` names, else from the user's cache, downloaded once.
"""

import gzip
import importlib
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .messages import shown

__all__ = ["IDX_DTYPES", "LOADERS", "MIRRORS", "MNIST_SHA256", "Dataset", "load", "load_mnist_raw", "read_idx"]

IDX_DTYPES: dict[int, str] = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The third byte of an idx file -> the dtype of its elements."""

MNIST_SHA256: dict[str, str] = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""The four original files, in the order train images, train labels, test images, test labels."""

MIRRORS: tuple[str, ...] = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Where the files of `MNIST_SHA256` are downloaded from, tried in turn."""

INSTALL_DEMO = "in a clone of the repository, run pip install '.[demo]'"
"""The remedy for a missing package of the extra `demo`; bnkit is not on PyPI."""

DIGITS_SEED = 0
SYNTHETIC_SEED = 0


class Dataset(NamedTuple):
    """A training and a test part: x float32 (N, D) in [0, 1], t int64 (N,) from 0; unpacks into its four arrays."""

    x_train: npt.NDArray[np.float32]
    t_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.float32]
    t_test: npt.NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes: the largest label of either part, plus one."""
        return int(max(self.t_train.max(), self.t_test.max())) + 1

    def __repr__(self) -> str:
        return "Dataset(" + ", ".join(f"{name}={array.shape}" for name, array in self._asdict().items()) + ")"


def load(name: str, *, path: str | os.PathLike[str] | None = None) -> Dataset:
    """Return the dataset called `name`: "mnist", "digits" or "synthetic".

    path: the data directory for MNIST, which holds the four files, compressed or not, in itself or in its folder
    `mnist`. Without it, the one that `BNKIT_DATA_DIR` names; without both, the user's cache, filled by download if
    need be. A directory that was named is never downloaded into. The other two datasets do not read it.

    digits: scikit-learn's 8x8 digits, 1,437 to train and 360 to test: the first 80 % and the rest of
    `np.random.default_rng(0).permutation(1797)`. synthetic: 10 Gaussian blobs in 64 features, 1,000 and 500.

    Raises ValueError for an unknown name and for a damaged or foreign file, FileNotFoundError where a named directory
    lacks a file, ConnectionError where a download fails, ImportError where the `demo` extra is needed and absent.
    """
    if not isinstance(name, str) or name not in LOADERS:
        raise ValueError(f"name must be one of {', '.join(map(repr, LOADERS))}, got {shown(name)}")
    return LOADERS[name](path)


def load_mnist_raw(
    path: str | os.PathLike[str] | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return MNIST as its files hold it: x_train (N, 28, 28), t_train (N,), x_test, t_test, all uint8.

    `path` and the errors are those of `load`.
    """
    named = path if path is not None else os.environ.get("BNKIT_DATA_DIR") or None
    files = _download_mnist() if named is None else _find_mnist(_path(named).expanduser())
    x_train, t_train = _read_labelled_images(files[0], files[1])
    x_test, t_test = _read_labelled_images(files[2], files[3])
    return x_train, t_train, x_test, t_test


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Return the array in an idx file, compressed by gzip or not, in native byte order.

    Raises ValueError for a file that is truncated, damaged, longer than its header says, or no idx file.
    Format: "The IDX file format", at the foot of Y. LeCun's MNIST page.
    """
    file = _path(path)
    try:
        content = file.read_bytes()
        # The content decides, not the name: browsers unpack a .gz and keep its name.
        return _parse_idx(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{os.fspath(path)} is not a whole idx file: {error}. Delete it and load again, or put a good copy there."
        ) from error


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError as error:
        raise TypeError(f"path must be a str or a path, got {shown(path)}; name a file or folder") from error


def _parse_idx(data: bytes) -> npt.NDArray[Any]:
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_DTYPES or data[3] == 0:
        codes = "/".join(f"{code:02x}" for code in IDX_DTYPES)
        raise ValueError(f"expected it to begin with 00 00, {codes}, dimensions, found {data[:16]!r}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise ValueError(f"expected a header of {header} bytes, found {len(data)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(data[4:header], ">u4"))
    dtype = np.dtype(IDX_DTYPES[data[2]])
    # math.prod, because sizes from a damaged header overflow int64.
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"expected {expected} bytes for shape {shape} of {dtype.name}, found {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _read_labelled_images(images: Path, labels: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    x, t = read_idx(images), read_idx(labels)
    remedy = "Delete it and load again, or put a good copy there."
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise ValueError(f"{images} must hold uint8 of shape (N, 28, 28), got {x.dtype} of shape {x.shape}. {remedy}")
    if t.dtype != np.uint8 or t.ndim != 1 or t.size == 0:
        raise ValueError(f"{labels} must hold uint8 of shape (N,), N > 0, got {t.dtype} of shape {t.shape}. {remedy}")
    if len(x) != len(t):
        raise ValueError(f"{images} holds {len(x)} images, but {labels} holds {len(t)} labels. Replace both.")
    if t.max() > 9:
        raise ValueError(f"{labels} must hold labels from 0 to 9, got {t.max()} at index {int(t.argmax())}. {remedy}")
    return x, t


def _find_mnist(root: Path) -> list[Path]:
    """The four files under a directory that the user named, each as .gz or without."""

    def present(folder: Path) -> list[Path]:
        choices = ((folder / name, folder / name.removesuffix(".gz")) for name in MNIST_SHA256)
        found = (next(filter(Path.is_file, pair), None) for pair in choices)
        return [path for path in found if path is not None]

    folder = max(root / "mnist", root, key=lambda folder: len(present(folder)))
    found = present(folder)
    if len(found) < len(MNIST_SHA256):
        names = {path.name.removesuffix(".gz") for path in found}
        missing = ", ".join(name for name in MNIST_SHA256 if name.removesuffix(".gz") not in names)
        raise FileNotFoundError(
            f"MNIST's {missing} not found in {folder}. Put the files there (with or without .gz), or name no data "
            "directory (path, --data-dir, BNKIT_DATA_DIR) and they are downloaded into the user's cache."
        )
    return found


def _download_mnist() -> list[Path]:
    """The four files in the user's cache, each downloaded unless it is there with the right hash."""
    pooch = _import_extra("pooch", "loading MNIST without a data directory")
    folder = Path(pooch.os_cache("bnkit")) / "mnist"
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # pooch reports each download on stderr
    try:
        return [_download(pooch, name, sha256, folder) for name, sha256 in MNIST_SHA256.items()]
    finally:
        logger.setLevel(level)


def _download(pooch: Any, name: str, sha256: str, folder: Path) -> Path:
    """One file, from the first mirror that gives it with the right hash; pooch moves it into place only then."""
    requests = _import_extra("requests", "downloading MNIST")
    # timeout: seconds to connect, and between two packets. Streaming, pooch leaves the socket of a failed answer open.
    downloader = pooch.HTTPDownloader(timeout=(5, 30), stream=False)
    failures: list[Exception] = []
    for mirror in MIRRORS:
        try:
            return Path(pooch.retrieve(mirror + name, f"sha256:{sha256}", name, folder, downloader=downloader))
        except (ValueError, requests.RequestException) as error:  # RequestException is an OSError: keep this first
            failures.append(error)
        except OSError as error:
            raise OSError(
                f"cannot write {name} into the cache {folder}: {error}. Make room or mend its permissions, "
                "or set BNKIT_DATA_DIR (or --data-dir) to a directory that holds MNIST."
            ) from error
    reasons = "; ".join(f"{mirror}: {error}" for mirror, error in zip(MIRRORS, failures, strict=True))
    remedy = (
        f"Try again on a working network, or get {', '.join(MNIST_SHA256)} by other means, put them into a folder "
        f"DIR/mnist and set BNKIT_DATA_DIR=DIR (or --data-dir DIR). Tried {reasons}"
    )
    if all(isinstance(error, ValueError) and not isinstance(error, OSError) for error in failures):
        raise ValueError(f"no mirror gave MNIST's {name} with the right SHA-256. {remedy}") from failures[-1]
    raise ConnectionError(f"cannot download MNIST's {name}. {remedy}") from failures[-1]


def _import_extra(module: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {module} ({error}); {INSTALL_DEMO}", name=module) from error


def _mnist(path: str | os.PathLike[str] | None) -> Dataset:
    x_train, t_train, x_test, t_test = load_mnist_raw(path)

    def scaled(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.divide(x.reshape(len(x), 784), 255, dtype=np.float32)

    return Dataset(scaled(x_train), t_train.astype(np.int64), scaled(x_test), t_test.astype(np.int64))


def _digits(_path: str | os.PathLike[str] | None) -> Dataset:
    digits = _import_extra("sklearn.datasets", "the digits dataset").load_digits()
    order = np.random.default_rng(DIGITS_SEED).permutation(len(digits.data))
    x, t = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int64)
    train = len(x) * 4 // 5
    return Dataset(x[:train], t[:train], x[train:], t[train:])


def _synthetic(_path: str | os.PathLike[str] | None) -> Dataset:
    rng = np.random.default_rng(SYNTHETIC_SEED)
    centres = rng.standard_normal((10, 64))
    t = rng.integers(10, size=1500)
    z = 0.4 * centres[t] + rng.standard_normal((1500, 64))
    # Not tanh or the logistic function: their last bits differ between machines, those of a quotient do not.
    x = (0.5 + 0.5 * z / (1 + np.abs(z))).astype(np.float32)
    return Dataset(x[:1000], t[:1000], x[1000:], t[1000:])


LOADERS: dict[str, Callable[[str | os.PathLike[str] | None], Dataset]] = {
    "mnist": _mnist,
    "digits": _digits,
    "synthetic": _synthetic,
}
"""Every dataset's name -> what loads it from a data directory or None."""


def __dir__() -> list[str]:
    return list(__all__)
