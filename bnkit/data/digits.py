"""The digits of scikit-learn."""

import os

import numpy as np

from bnkit.data.dataset import Dataset, import_extra

DIGITS_SEED = 0


def load(path: str | os.PathLike[str] | None) -> Dataset:
    loaded = import_extra("sklearn.datasets", "the digits dataset").load_digits()
    order = np.random.default_rng(DIGITS_SEED).permutation(len(loaded.data))
    x, t = (loaded.data[order] / 16).astype(np.float32), loaded.target[order].astype(np.int64)
    train = len(x) * 4 // 5
    return Dataset(x[:train], t[:train], x[train:], t[train:])
