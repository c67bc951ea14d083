"""NumPy arrays on the CPU.

All ops are overridden by the fused kernels of `kernels/`, where they were compiled in. A masked batch norm is that of
`bnkit.reference`, and so is a whole batch norm of which a channel is spread so little or so far, or has a gamma / std
so large or so small, that the kernels' arithmetic is not wide enough. Dense products are BLAS's.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np
import threadpoolctl

from bnkit.backend import Array, Backend, BackendError, Layout
from bnkit.reference import BatchNormBackward, BatchNormTrain, Moments, pack_bits, unpack_bits

from . import parallel

T = TypeVar("T")
_MOST_THREADS = 1024
_FUSED = "fdeE"  # float32, float64, float16, and ml_dtypes' bfloat16
_SEARCH_LIMIT: Any = 10_000  # steps np.shares_memory may take; beyond them, arrays count as overlapping


class NumpyBackend(Backend):
    name: ClassVar[str] = "numpy"
    array_module: ClassVar[str] = "numpy"

    def __init__(self, device: str | None = None) -> None:
        self.xp = np
        self.device = "cpu"
        kernels = compiled_kernels()
        check_level(kernels)
        self._kernels: Any = kernels if kernels is not None and kernels.kernel_level() is not None else None
        self.threads = thread_count()
        if self._kernels is not None:
            self._kernels.set_threads(self.threads)

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

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The tasks at the same time, a thread each; BLAS and the kernels of the process keep to one meanwhile."""
        return parallel.run(tasks, self._kernels)

    def writeable(self, a: Array) -> bool:
        return bool(a.flags.writeable)

    def overlap(self, a: Array, b: Array) -> bool:
        if not np.may_share_memory(a, b):
            return False
        try:
            return np.shares_memory(a, b, max_work=_SEARCH_LIMIT)
        except np.exceptions.TooHardError:
            return True

    def plain_views(
        self,
        x: Array,
        others: tuple[Array | None, ...],
        parameters: tuple[Array | None, ...],
        copies: int,
        layout: Layout,
    ) -> tuple[Any, ...] | None:
        if self._kernels is None:
            return None
        views: tuple[Any, ...] | None = self._kernels.plain_views(
            x, others, parameters, copies, layout.shape, layout.parameters
        )
        return views

    # The base class leaves the options to the reference; they are those of the table in backends/README.md.
    def batch_norm_moments(self, x: Array, *, mask: Array | None = None) -> Moments:  # type: ignore[override]
        if mask is not None or not self._fuses(x):
            return super().batch_norm_moments(x, mask=mask)
        moments: Moments = self._kernels.moments(x)
        return moments

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
        if mask is None and self._fuses(x):
            relu = activation is not None
            trained: BatchNormTrain | None = self._kernels.train(
                x, gamma, beta, running_mean, running_var, residual, out, decay, eps, correction, relu
            )
            if trained is not None:
                return trained
            running_mean = running_var = None  # the kernel has moved them
        options: dict[str, Any] = {"mask": mask, "residual": residual, "activation": activation, "out": out}
        options |= {"decay": decay, "eps": eps, "correction": correction}
        plain = super().batch_norm_train(x, gamma, beta, running_mean, running_var, **options)
        return plain._replace(active=self._kernel_bits(plain.active, x))

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
        if self._fuses(x):
            relu = activation is not None
            result: tuple[Array, Array | None] | None = self._kernels.inference(
                x, gamma, beta, mean, var, residual, out, eps, relu
            )
            if result is not None:
                return result
        options: dict[str, Any] = {"eps": eps, "residual": residual, "activation": activation, "out": out}
        y, active = super().batch_norm_inference(x, gamma, beta, mean, var, **options)
        return y, self._kernel_bits(active, x)

    def batch_norm_gradient_sums(  # type: ignore[override]
        self,
        dy: Array,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        rstd: Array,
        *,
        mask: Array | None = None,
        activation: str | None = None,
        active: Array | None = None,
    ) -> tuple[Array, Array]:
        if mask is None and self._fuses(x):
            relu = activation is not None
            sums: tuple[Array, Array] | None = self._kernels.gradient_sums(dy, x, gamma, beta, mean, rstd, active, relu)
            if sums is not None:
                return sums
        options = {"mask": mask, "activation": activation, "active": self._plain_bits(active, x)}
        return super().batch_norm_gradient_sums(dy, x, gamma, beta, mean, rstd, **options)

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
        if mask is None and self._fuses(x):
            relu = activation is not None
            total = (None, None, None) if sums is None else (count, *sums)
            grads: BatchNormBackward | None = self._kernels.backward(
                dy, x, gamma, beta, mean, rstd, active, *total, out, train, relu, residual
            )
            if grads is not None:
                return grads
        options: dict[str, Any] = {"mask": mask, "activation": activation, "residual": residual, "out": out}
        options |= {"train": train, "count": count, "sums": sums, "active": self._plain_bits(active, x)}
        return super().batch_norm_backward(dy, x, gamma, beta, mean, rstd, **options)

    def matmul(self, a: Array, b: Array) -> Array:
        """BLAS, and a kernel where `a` is large and mostly 0, as images are; each replica by itself."""
        found = None if self._kernels is None else self._kernels.sparse_product(a, b)
        if found is None:
            return np.matmul(a, b)
        product, left = found
        for r in left:  # there are replicas then
            np.matmul(a if a.ndim < b.ndim else a[r], b[r], out=product[r])
        return product

    def softmax_cross_entropy(self, logits: Array, target: Array) -> tuple[Array, Array]:
        labels = target.dtype.kind in "iu"
        shared = target.ndim == (1 if labels else 2)
        if not self._fuses(logits) or not (labels or target.dtype.name in ("float32", "float64")):
            return super().softmax_cross_entropy(logits, target)
        kind = np.int64 if labels else np.float64 if logits.dtype.char == "d" else np.float32
        target = np.ascontiguousarray(target, kind)
        z = np.ascontiguousarray(logits).reshape(-1, *logits.shape[-2:])
        given = (target, None) if labels else (None, target)
        loss, gradient = self._kernels.softmax_cross_entropy(z, *given, shared)
        return loss.reshape(logits.shape[:-2])[()], gradient.reshape(logits.shape)

    def optimizer_step(  # type: ignore[override]
        self,
        rule: str,
        p: Array,
        g: Array,
        memory: Sequence[Array],
        lr: Array | float,
        *,
        decays: Sequence[float] = (),
        eps: float = 0.0,
        weight_decay: float = 0.0,
        step: int = 1,
    ) -> None:
        arrays = (rule, p, g, memory, lr)
        if self._kernels is None or not self._kernels.optimizer_step(*arrays, decays, eps, weight_decay, step):
            settings: dict[str, Any] = {"decays": decays, "eps": eps, "weight_decay": weight_decay, "step": step}
            super().optimizer_step(*arrays, **settings)

    def _fuses(self, x: Array) -> bool:
        return self._kernels is not None and x.dtype.char in _FUSED and x.size > 0

    def _plain_bits(self, active: Array | None, x: Array) -> Array | None:
        """The kernels' bits, which begin anew with each row that they walk, as the reference packs them."""
        if active is None or not self._fuses(x):
            return active
        rows, width = self._kernels.walked_rows(x.shape)
        flags = np.unpackbits(active.reshape(x.shape[0] * rows, -1), axis=1, count=width, bitorder="little")
        return pack_bits(np, flags.reshape(x.shape[0], -1)[:, : x[0].size] != 0)

    def _kernel_bits(self, active: Array | None, x: Array) -> Array | None:
        """The inverse of `_plain_bits`."""
        if active is None or not self._fuses(x):
            return active
        rows, width = self._kernels.walked_rows(x.shape)
        flags = np.zeros((x.shape[0], rows * width), bool)
        flags[:, : x[0].size] = unpack_bits(np, active, (x.shape[0], x[0].size))
        return np.packbits(flags.reshape(-1, width), axis=1, bitorder="little").reshape(-1)


def compiled_kernels() -> ModuleType | None:
    """The extension module; None where the package was installed without a C++ compiler."""
    try:
        return importlib.import_module("bnkit_numpy._kernels")
    except ModuleNotFoundError as error:
        if error.name != "bnkit_numpy._kernels":
            raise
        return None
    except ImportError as error:
        raise BackendError(f"the compiled kernels cannot be loaded ({error})", remedy="reinstall bnkit") from error


def check_level(kernels: ModuleType | None) -> None:
    """BackendError where `BNKIT_CPU_LEVEL` names neither a level of the kernels that this machine runs nor "off"."""
    wanted = os.environ.get("BNKIT_CPU_LEVEL", "")
    legal = [*(reversed(kernels.kernel_levels()) if kernels else ()), "off"]
    if wanted and wanted not in legal:
        where = "on this machine" if kernels else "where bnkit is installed without its kernels"
        limits = f"{'one of ' * (len(legal) > 1)}{', '.join(legal)} {where}"
        raise BackendError(f"BNKIT_CPU_LEVEL must be {limits}, got {wanted!r}", remedy="set it so, or unset it")


def blas_threads() -> int | None:
    """The threads that NumPy's matrix products use, and without compiled kernels the only ones."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=None)


def thread_count() -> int:
    """`BNKIT_NUM_THREADS`, else the CPUs that this process may use."""
    wanted = os.environ.get("BNKIT_NUM_THREADS", "")
    if wanted and not (wanted.isdecimal() and 0 < int(wanted) <= _MOST_THREADS):
        limits = f"a positive number of at most {_MOST_THREADS}"
        raise BackendError(f"BNKIT_NUM_THREADS must be {limits}, got {wanted!r}", remedy="set it so, or unset it")
    return int(wanted) if wanted else cpu_count()


def cpu_count() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
