"""Datasets as host NumPy arrays: MNIST, scikit-learn's digits, and a synthetic one."""

import os
from collections.abc import Callable

from bnkit.backend.messages import shown
from bnkit.data import digits, mnist, synthetic
from bnkit.data.dataset import INSTALL_DEMO as INSTALL_DEMO
from bnkit.data.dataset import Dataset
from bnkit.data.idx import IDX_DTYPES, read_idx
from bnkit.data.mnist import MIRRORS, MNIST_SHA256, load_mnist_raw

__all__ = ["IDX_DTYPES", "LOADERS", "MIRRORS", "MNIST_SHA256", "Dataset", "load", "load_mnist_raw", "read_idx"]


def load(name: str, *, path: str | os.PathLike[str] | None = None) -> Dataset:
    """Return the dataset called `name`: "mnist", "digits" or "synthetic".

    path: the directory of MNIST's four files, compressed or not; they may lie in its folder `mnist`. The default is
    `BNKIT_DATA_DIR`. If that is not set either, MNIST is downloaded into the user's cache, once. Nothing is ever
    downloaded into a named directory. The other two datasets ignore `path`.

    digits: scikit-learn's 8x8 digits in the order `np.random.default_rng(0).permutation(1797)`, 1,437 to train and 360
    to test. synthetic: 10 Gaussian blobs in 64 features, 1,000 to train and 500 to test.

    Raises ValueError for an unknown name and for a damaged or foreign file, FileNotFoundError if the directory lacks a
    file, ConnectionError if a download fails, ImportError if a package of the `demo` extra is missing.

        >>> bnkit.data.load("synthetic")
        Dataset(x_train=(1000, 64), t_train=(1000,), x_test=(500, 64), t_test=(500,))
    """
    if not isinstance(name, str) or name not in LOADERS:
        raise ValueError(f"name must be one of {', '.join(map(repr, LOADERS))}, got {shown(name)}")
    return LOADERS[name](path)


LOADERS: dict[str, Callable[[str | os.PathLike[str] | None], Dataset]] = {
    "mnist": mnist.load,
    "digits": digits.load,
    "synthetic": synthetic.load,
}
"""The function that loads each dataset, from a data directory or None."""


def __dir__() -> list[str]:
    return list(__all__)
