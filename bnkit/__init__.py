"""Batch normalization and MLP training on NumPy and CuPy arrays.

`bnkit.batch_norm` and `bnkit.BatchNorm` normalize, `bnkit.MLP` and `bnkit.fit` train, `bnkit.get_backend` chooses
where. `bnkit.tutorial` has the names of section 6.3 of "Deep Learning from Scratch" over them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .backend import BackendError, backend_of, backends, get_backend, use_backend
from .batch_norm import BatchNormGrads, batch_norm, batch_norm_backward

if TYPE_CHECKING:
    from . import data, optim
    from .callbacks import EarlyStopping
    from .double_backward import BatchNormDoubleGrads, batch_norm_double_backward
    from .folding import fold, fold_weights
    from .layers import BatchNorm, Dropout, Linear, ReLU, Sequential, Sigmoid, Tanh
    from .mlp import MLP
    from .moments import Moments
    from .statistics import update_statistics
    from .train import fit

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
    "callbacks": ("EarlyStopping",),
    "double_backward": ("BatchNormDoubleGrads", "batch_norm_double_backward"),
    "folding": ("fold", "fold_weights"),
    "layers": ("BatchNorm", "Dropout", "Linear", "ReLU", "Sequential", "Sigmoid", "Tanh"),
    "mlp": ("MLP",),
    "moments": ("Moments",),
    "statistics": ("update_statistics",),
    "train": ("fit",),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    if name == "__version__":
        metadata = importlib.import_module("importlib.metadata")
        try:
            return metadata.version("bnkit")
        except metadata.PackageNotFoundError:  # a bare PYTHONPATH
            return "not installed"
    raise AttributeError(f"module 'bnkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", *__all__, *_MODULES})
