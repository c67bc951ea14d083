"""MNIST from a named directory, else from `BNKIT_DATA_DIR`, else downloaded once into the user's cache."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnkit.data.dataset import Dataset, import_extra
from bnkit.data.idx import as_path, read_idx

MNIST_SHA256: dict[str, str] = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""The SHA-256 of the four files: training images and labels, test images and labels."""

MIRRORS: tuple[str, ...] = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""The folders to download the files from, tried in this order."""


def load(path: str | os.PathLike[str] | None) -> Dataset:
    x_train, t_train, x_test, t_test = load_mnist_raw(path)

    def scaled(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.divide(x.reshape(len(x), 784), 255, dtype=np.float32)

    return Dataset(scaled(x_train), t_train.astype(np.int64), scaled(x_test), t_test.astype(np.int64))


def load_mnist_raw(
    path: str | os.PathLike[str] | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return MNIST as in its files: x_train (N, 28, 28), t_train (N,), x_test, t_test, all uint8.

    `path` and the errors are as in `load`.
    """
    named = path if path is not None else os.environ.get("BNKIT_DATA_DIR") or None
    files = _download_mnist() if named is None else _find_mnist(as_path(named).expanduser())
    x_train, t_train = _read_labelled_images(files[0], files[1])
    x_test, t_test = _read_labelled_images(files[2], files[3])
    return x_train, t_train, x_test, t_test


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
    """The four files in a directory that the user named, each with or without .gz."""

    def present(folder: Path) -> list[Path]:
        choices = ((folder / name, folder / name.removesuffix(".gz")) for name in MNIST_SHA256)
        return [path for pair in choices if (path := next(filter(Path.is_file, pair), None)) is not None]

    folder = max(root / "mnist", root, key=lambda folder: len(present(folder)))
    files = present(folder)
    if len(files) < len(MNIST_SHA256):
        names = {path.name.removesuffix(".gz") for path in files}
        missing = ", ".join(name for name in MNIST_SHA256 if name.removesuffix(".gz") not in names)
        raise FileNotFoundError(
            f"MNIST's {missing} not found in {folder}. Put the files there (with or without .gz), or name no data "
            "directory (path, --data-dir, BNKIT_DATA_DIR): then they are downloaded into the user's cache."
        )
    return files


def _download_mnist() -> list[Path]:
    """The four files in the user's cache. Each is downloaded unless the cache has it with the right hash."""
    pooch = import_extra("pooch", "loading MNIST without a data directory")
    folder = Path(pooch.os_cache("bnkit")) / "mnist"
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # pooch would report each download on stderr
    try:
        return [_download(pooch, name, sha256, folder) for name, sha256 in MNIST_SHA256.items()]
    finally:
        logger.setLevel(level)


def _download(pooch: Any, name: str, sha256: str, folder: Path) -> Path:
    """One file, from the first mirror with the right hash. pooch moves a file into the cache only after that check."""
    requests = import_extra("requests", "downloading MNIST")
    # timeout: seconds to connect, and between two packets. stream=True leaves sockets of failed answers open.
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
