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

    path: the data directory for MNIST, which holds the four files, compressed or not, in itself or in its folder
    `mnist`. Without it, the one that `BNKIT_DATA_DIR` names; without both, the user's cache, filled by download if
    need be. A directory that was named is never downloaded into. The other two datasets do not read it.

    digits: scikit-learn's 8x8 digits, 1,437 to train and 360 to test: the first 80 % and the rest of
    `np.random.default_rng(0).permutation(1797)`. synthetic: 10 Gaussian blobs in 64 features, 1,000 and 500.

    Raises ValueError for an unknown name and for a damaged or foreign file, FileNotFoundError where a named directory
    lacks a file, ConnectionError where a download fails, ImportError where the `demo` extra is needed and absent.

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
"""Every dataset's name -> what loads it from a data directory or None."""


def __dir__() -> list[str]:
    return list(__all__)
