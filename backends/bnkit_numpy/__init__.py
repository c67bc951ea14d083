"""NumPy arrays on the CPU.

Overridden by the fused kernels of `kernels/`, where they were compiled in and the data are float32 or float64:
batch_norm_train, batch_norm_inference and batch_norm_backward without mask and residual. All else is `bnkit.reference`.
"""

import importlib
import os
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import threadpoolctl

from bnkit.backend import Array, Backend, BackendError
from bnkit.reference import BatchNormBackward, BatchNormTrain, Moments

_SEARCH_LIMIT: Any = 10_000  # steps np.shares_memory may take; beyond them, arrays count as overlapping


class NumpyBackend(Backend):
    name: ClassVar[str] = "numpy"
    array_module: ClassVar[str] = "numpy"

    def __init__(self, device: str | None = None) -> None:
        self.xp = np
        self.device = "cpu"
        kernels = compiled_kernels()
        self._kernels: Any = kernels if kernels is not None and kernels.kernel_level() is not None else None
        if self._kernels is not None:
            self._kernels.set_threads(thread_count())

    @classmethod
    def owns(cls, array_type: type) -> bool:
        return issubclass(array_type, np.ndarray) and not issubclass(array_type, (np.ma.MaskedArray, np.matrix))

    def details(self) -> dict[str, Any]:
        kernels = compiled_kernels()
        return {
            "device": f"CPU, {cpu_count()} cores",
            "libraries": {"numpy": np.__version__},
            "threads": blas_threads() if self._kernels is None else self._kernels.get_threads(),
            "simd": kernels.kernel_level() if kernels else None,
            "compiled_kernels": self._kernels is not None,
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

    # The base class leaves the options to the reference; they are those of the table in backends/README.md.
    def batch_norm_train(  # type: ignore[override]
        self,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        running_mean: Array | None,
        running_var: Array | None,
        *,
        decay: float,
        eps: float,
        correction: int,
        mask: Array | None = None,
        residual: Array | None = None,
        activation: str | None = None,
        out: Array | None = None,
    ) -> BatchNormTrain:
        if mask is not None or residual is not None or not self._fuses(x):
            options: dict[str, Any] = {"mask": mask, "residual": residual, "activation": activation, "out": out}
            options |= {"decay": decay, "eps": eps, "correction": correction}
            return super().batch_norm_train(x, gamma, beta, running_mean, running_var, **options)
        groups, rows, channels, inner = x.shape
        y = np.empty_like(x) if out is None else out
        count, mean, m2, rstd = np.empty((4, groups, channels))
        count.fill(rows * inner)
        relu = activation is not None
        self._kernels.train(x, gamma, beta, running_mean, running_var, y, mean, m2, rstd, decay, eps, correction, relu)
        return BatchNormTrain(y, Moments(count, mean, m2), rstd, None)

    def batch_norm_inference(  # type: ignore[override]
        self,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        var: Array,
        *,
        eps: float,
        residual: Array | None = None,
        activation: str | None = None,
        out: Array | None = None,
    ) -> tuple[Array, Array | None]:
        if residual is not None or mean.dtype != var.dtype or mean.dtype != x.dtype or not self._fuses(x):
            options: dict[str, Any] = {"eps": eps, "residual": residual, "activation": activation, "out": out}
            return super().batch_norm_inference(x, gamma, beta, mean, var, **options)
        y = np.empty_like(x) if out is None else out
        self._kernels.inference(x, gamma, beta, mean, var, y, eps, activation is not None)
        return y, None

    def batch_norm_backward(  # type: ignore[override]
        self,
        dy: Array,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        rstd: Array,
        *,
        train: bool,
        count: Array = None,
        sums: tuple[Array, Array] | None = None,
        mask: Array | None = None,
        activation: str | None = None,
        active: Array | None = None,
        residual: bool = False,
        out: Array | None = None,
    ) -> BatchNormBackward:
        if mask is not None or sums is not None or residual or not self._fuses(x):
            options: dict[str, Any] = {"mask": mask, "activation": activation, "active": active, "out": out}
            options |= {"train": train, "count": count, "sums": sums, "residual": residual}
            return super().batch_norm_backward(dy, x, gamma, beta, mean, rstd, **options)
        dx = np.empty_like(x) if out is None else out
        dgamma, dbeta = np.empty((2, x.shape[0], x.shape[2]), x.dtype)
        relu = activation is not None
        self._kernels.backward(dy, x, gamma, beta, mean, rstd, dx, dgamma, dbeta, train, relu)
        return BatchNormBackward(dx, dgamma, dbeta, None)

    def _fuses(self, x: Array) -> bool:
        return self._kernels is not None and x.dtype.char in "fd" and x.size > 0


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


def thread_count() -> int:
    """`BNKIT_NUM_THREADS`, else the CPUs that this process may use."""
    wanted = os.environ.get("BNKIT_NUM_THREADS", "")
    if wanted and not (wanted.isdecimal() and int(wanted) > 0):
        raise BackendError(
            f"BNKIT_NUM_THREADS must be a positive number, got {wanted!r}", remedy="set it so, or unset it"
        )
    return int(wanted) if wanted else cpu_count()


def cpu_count() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
