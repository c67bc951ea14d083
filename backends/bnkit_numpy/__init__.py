"""NumPy arrays on the CPU. No op is overridden yet: all of them are `bnkit.reference` over NumPy."""

import importlib
import os
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import threadpoolctl

from bnkit.backend import Array, Backend

_SEARCH_LIMIT: Any = 10_000  # steps np.shares_memory may take; beyond them, arrays count as overlapping


class NumpyBackend(Backend):
    name: ClassVar[str] = "numpy"
    array_module: ClassVar[str] = "numpy"

    def __init__(self, device: str | None = None) -> None:
        self.xp = np
        self.device = "cpu"

    @classmethod
    def owns(cls, array_type: type) -> bool:
        return issubclass(array_type, np.ndarray) and not issubclass(array_type, (np.ma.MaskedArray, np.matrix))

    def details(self) -> dict[str, Any]:
        kernels = compiled_kernels()
        return {
            "device": f"CPU, {cpu_count()} cores",
            "libraries": {"numpy": np.__version__},
            "threads": blas_threads(),
            "simd": kernels.cpu_level() if kernels else None,
            "compiled_kernels": kernels is not None,
        }

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        return np.asarray(a, dtype=dtype)

    def writeable(self, a: Array) -> bool:
        return bool(a.flags.writeable)

    def overlap(self, a: Array, b: Array) -> bool:
        if not np.may_share_memory(a, b):
            return False
        try:
            return np.shares_memory(a, b, max_work=_SEARCH_LIMIT)
        except np.exceptions.TooHardError:
            return True


def compiled_kernels() -> ModuleType | None:
    """The extension module; None where the package was installed without a C++ compiler."""
    try:
        return importlib.import_module("bnkit_numpy._kernels")
    except ImportError:
        return None


def blas_threads() -> int | None:
    """The threads that NumPy's matrix products use; nothing else here is threaded."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=None)


def cpu_count() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
