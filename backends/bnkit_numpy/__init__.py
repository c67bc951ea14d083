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
from bnkit.reference import (
    BackwardArguments,
    BatchNormBackward,
    BatchNormTrain,
    GradientSumsArguments,
    InferenceArguments,
    Moments,
    MomentsArguments,
    StepArguments,
    TrainArguments,
    pack_bits,
    unpack_bits,
)

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

    def overlap(self, a: Any, b: Any) -> bool:
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

    def batch_norm_moments(self, args: MomentsArguments) -> Moments:
        if args.mask is None and self._fuses(args.x):
            moments: Moments = self._kernels.moments(args)
            return moments
        return super().batch_norm_moments(args)

    def batch_norm_train(self, args: TrainArguments) -> BatchNormTrain:
        if args.mask is None and self._fuses(args.x):
            trained: BatchNormTrain | None = self._kernels.train(args)
            if trained is not None:
                return trained
            args = args._replace(running_mean=None, running_var=None)  # the kernel has moved them
        trained = super().batch_norm_train(args)
        return trained._replace(active=self._kernel_bits(trained.active, args.x))

    def batch_norm_inference(self, args: InferenceArguments) -> tuple[Array, Array | None]:
        if self._fuses(args.x):
            result: tuple[Array, Array | None] | None = self._kernels.inference(args)
            if result is not None:
                return result
        y, active = super().batch_norm_inference(args)
        return y, self._kernel_bits(active, args.x)

    def batch_norm_gradient_sums(self, args: GradientSumsArguments) -> tuple[Array, Array]:
        if args.mask is None and self._fuses(args.x):
            sums: tuple[Array, Array] | None = self._kernels.gradient_sums(args)
            if sums is not None:
                return sums
        return super().batch_norm_gradient_sums(args._replace(active=self._reference_bits(args.active, args.x)))

    def batch_norm_backward(self, args: BackwardArguments) -> BatchNormBackward:
        if args.mask is None and self._fuses(args.x):
            grads: BatchNormBackward | None = self._kernels.backward(args)
            if grads is not None:
                return grads
        return super().batch_norm_backward(args._replace(active=self._reference_bits(args.active, args.x)))

    def matmul(self, a: Any, b: Any) -> Array:
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

    def optimizer_step(self, args: StepArguments) -> None:
        if self._kernels is None or not self._kernels.optimizer_step(args):
            super().optimizer_step(args)

    def _fuses(self, x: Array) -> bool:
        return self._kernels is not None and x.dtype.char in _FUSED and x.size > 0

    def _reference_bits(self, active: Any, x: Array) -> Array | None:
        """The kernels' bits, which begin anew with each row that they walk, as the reference packs them."""
        if active is None or not self._fuses(x):
            return active
        rows, width = self._kernels.walked_rows(x.shape)
        flags = np.unpackbits(active.reshape(x.shape[0] * rows, -1), axis=1, count=width, bitorder="little")
        return pack_bits(np, flags.reshape(x.shape[0], -1)[:, : x[0].size] != 0)

    def _kernel_bits(self, active: Array | None, x: Array) -> Array | None:
        """The inverse of `_reference_bits`."""
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
