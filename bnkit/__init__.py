"""Batch normalization and MLP training on NumPy and CuPy arrays.

`bnkit.batch_norm` and `bnkit.BatchNorm` normalize, `bnkit.MLP` and `bnkit.fit` train, `bnkit.get_backend` chooses
where. `bnkit.tutorial` has the names of section 6.3 of "Deep Learning from Scratch" over them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bnkit.backend import BackendError, backend_of, backends, get_backend, use_backend
from bnkit.norm.batch_norm import BatchNormGrads, batch_norm, batch_norm_backward

if TYPE_CHECKING:
    from bnkit import data, optim
    from bnkit.nn.activation import ReLU, Sigmoid, Tanh
    from bnkit.nn.batch_norm import BatchNorm
    from bnkit.nn.dropout import Dropout
    from bnkit.nn.fold import fold, fold_weights
    from bnkit.nn.linear import Linear
    from bnkit.nn.mlp import MLP
    from bnkit.nn.sequential import Sequential
    from bnkit.nn.statistics import update_statistics
    from bnkit.norm.double_backward import BatchNormDoubleGrads, batch_norm_double_backward
    from bnkit.norm.moments import Moments
    from bnkit.training.callbacks import EarlyStopping
    from bnkit.training.fit import fit

__all__ = [
    "MLP",
    "BackendError",
    "BatchNorm",
    "BatchNormDoubleGrads",
    "BatchNormGrads",
    "Dropout",
    "EarlyStopping",
    "Linear",
    "Moments",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "backend_of",
    "backends",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_double_backward",
    "data",
    "fit",
    "fold",
    "fold_weights",
    "get_backend",
    "optim",
    "update_statistics",
    "use_backend",
]

# Imported when first asked for, so that `import bnkit` costs little more than `import numpy` (bench/import_time.py).
_MODULES = ("data", "experiments", "gradcheck", "measure", "optim", "testing", "tutorial")
_HOMES = {
    "BatchNorm": "nn.batch_norm",
    "BatchNormDoubleGrads": "norm.double_backward",
    "Dropout": "nn.dropout",
    "EarlyStopping": "training.callbacks",
    "Linear": "nn.linear",
    "MLP": "nn.mlp",
    "Moments": "norm.moments",
    "ReLU": "nn.activation",
    "Sequential": "nn.sequential",
    "Sigmoid": "nn.activation",
    "Tanh": "nn.activation",
    "batch_norm_double_backward": "norm.double_backward",
    "fit": "training.fit",
    "fold": "nn.fold",
    "fold_weights": "nn.fold",
    "update_statistics": "nn.statistics",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"bnkit.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"bnkit.{_HOMES[name]}"), name)
    if name == "__version__":
        metadata = importlib.import_module("importlib.metadata")
        try:
            return metadata.version("bnkit")
        except metadata.PackageNotFoundError:  # a bare PYTHONPATH
            return "not installed"
    raise AttributeError(f"module 'bnkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", *__all__, *_MODULES})
