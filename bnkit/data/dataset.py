"""`Dataset`: a training and a test part, as host NumPy arrays."""

import importlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

INSTALL_DEMO = "in a clone of the repository, run pip install '.[demo]'"
"""The remedy for a missing package of the extra `demo`, since bnkit is not on PyPI."""


class Dataset(NamedTuple):
    """A training and a test part: x float32 (N, D) in [0, 1], t int64 (N,) labels from 0; a tuple of four arrays."""

    x_train: npt.NDArray[np.float32]
    t_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.float32]
    t_test: npt.NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes: the largest label plus one."""
        return int(max(self.t_train.max(), self.t_test.max())) + 1

    def __repr__(self) -> str:
        return "Dataset(" + ", ".join(f"{name}={array.shape}" for name, array in self._asdict().items()) + ")"


def import_extra(module: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {module} ({error}); {INSTALL_DEMO}", name=module) from error
