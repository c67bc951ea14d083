"""Kernels by name: compiled once, their arguments checked, launched on the current stream.

CuPy passes to a kernel whatever it is given, and a wrong dtype, layout or device reads or writes somewhere else. So no
array of a caller's goes into a launch that `Launcher.argument` has not seen.

Nothing here reads from the device or waits for it, so calls can be captured into a CUDA graph, after one that compiled
the kernels and, on the same stream, filled CuPy's pool. What they took from the pool goes back to it when they return,
and each replay writes there: so capture with a pool of its own (`cupy.cuda.using_allocator`), which lives as long as
the graph.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnkit.backend import Array, BackendError

from .plan import HELD, THREADS
from .plan import Limits as Limits

KERNELS = Path(__file__).parent / "kernels"
OPTIONS = ("-std=c++17",)
STORED = {"float16": "__half", "bfloat16": "__nv_bfloat16", "float32": "float", "float64": "double"}
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
TILED = ("moments", "normalize", "gradient_sums", "gradient")
VECTOR_BYTES = 16
# How many arrays an optimizer's rule remembers, and how many decays weigh them; in the order of the kernel's numbers.
RULES = {"sgd": (0, 0), "momentum": (1, 1), "nesterov": (1, 1), "adagrad": (1, 0), "rmsprop": (1, 1), "adam": (2, 2)}
STEPPED = ("float32", "float64")  # what parameters are stored in

# load(path, options, names, cooperative) compiles the file with these name expressions and returns a module, of which
# get_function(name) is called with (grid, block, arguments, bytes of shared memory that the kernel does not name).
Load = Callable[[Path, tuple[str, ...], tuple[str, ...], bool], Any]


def names_of(file: str, dtype: str) -> tuple[str, ...]:
    """The name expressions that one module of `file` holds."""
    if file == "uniform":
        return ("bnkit::uniform",)
    if file == "softmax":
        return (f"bnkit::softmax<{STORED[dtype]}>", "bnkit::mean_loss")
    if file == "optimizer_step":
        return tuple(rule_name(rule, dtype) for rule in RULES)
    vectors = (1, VECTOR_BYTES // ITEMSIZE[dtype])
    return tuple(tiled_name(file, dtype, v, runs) for v in vectors for runs in (False, True))


def tiled_name(file: str, dtype: str, vector: int, runs: bool) -> str:
    held = f", {HELD[file][vector]}" if file in HELD else ""
    return f"bnkit::{file}<{STORED[dtype]}, {vector}, {str(runs).lower()}{held}>"


def rule_name(rule: str, dtype: str) -> str:
    return f"bnkit::optimizer_step<{STORED[dtype]}, {tuple(RULES).index(rule)}>"


def instantiations() -> Iterator[tuple[Path, tuple[str, ...], tuple[str, ...], bool]]:
    """(file, options, names, cooperative) of every module that a backend can ask for."""
    for file in (*TILED, *HELD, "softmax"):
        for dtype in STORED:
            for cooperative in (False, True) if file in HELD else (False,):
                yield KERNELS / f"{file}.cu", OPTIONS, names_of(file, dtype), cooperative
    for dtype in STEPPED:
        yield KERNELS / "optimizer_step.cu", OPTIONS, names_of("optimizer_step", dtype), False
    yield KERNELS / "uniform.cu", OPTIONS, names_of("uniform", ""), False


class Launcher:
    """The kernels of one device, over the arrays of `xp`."""

    def __init__(self, xp: Any, load: Load, limits: Limits, device: Any) -> None:
        self.xp = xp
        self.limits = limits
        self._load = load
        self._device = device
        self._modules: dict[tuple[str, str, bool], Any] = {}
        self._kernels: dict[tuple[str, str, bool, str], Callable[..., None]] = {}

    def __call__(
        self,
        name: str,
        blocks: int,
        arguments: tuple[Any, ...],
        *,
        dtype: str = "",
        block: tuple[int, ...] = (THREADS, 1),
        cooperative: bool = False,
        shared: int = 0,
        file: str | None = None,
    ) -> None:
        """Launch the name expression `name` of `file`, which is the name's own where it is not given."""
        file = file or name.partition("<")[0].removeprefix("bnkit::")
        key = (file, dtype, cooperative)
        kernel = self._kernels.get((*key, name))
        if kernel is None:
            if key not in self._modules:
                self._modules[key] = self._load(KERNELS / f"{file}.cu", OPTIONS, names_of(file, dtype), cooperative)
            kernel = self._kernels[(*key, name)] = self._modules[key].get_function(name)
        kernel((blocks,), block, arguments, shared)

    def argument(self, name: str, a: Array | None, dtypes: str | Sequence[str], shape: Sequence[int]) -> Any:
        """`a`, checked; None, which a kernel gets as a null pointer, stays None."""
        if a is None:
            return None
        if not hasattr(a, "flags") or not hasattr(a, "device"):
            raise TypeError(f"{name} must be an array, got {type(a).__name__}")
        allowed = (dtypes,) if isinstance(dtypes, str) else dtypes
        if a.dtype.name not in allowed or not a.dtype.isnative:
            raise TypeError(f"{name} must be {' or '.join(allowed)}, got {a.dtype.name}")
        if tuple(a.shape) != tuple(shape):
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(a.shape)}")
        device = getattr(a.device, "id", a.device)  # NumPy's arrays have a word there
        if device != self._device:
            raise BackendError(
                f"{name} must lie on device {self._device}, got one on {device}", remedy="move it by backend.asarray"
            )
        if not a.flags.c_contiguous:
            raise ValueError(f"{name} must be C contiguous, got strides {a.strides}")
        if address(a) % a.dtype.itemsize:
            raise ValueError(f"{name} must be aligned to its {a.dtype.itemsize} bytes, got {address(a):#x}")
        return a

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """A result or a workspace, from the pool of the library."""
        return self.xp.empty(tuple(shape), dtype=dtype)

    def counters(self, count: int) -> Array:
        """What blocks count each other by; of each launch its own, since streams may run beside each other."""
        return self.xp.zeros((count,), dtype=np.uint32)


def address(a: Any) -> int:
    return int(a.data.ptr)


def vectors_fit(*arrays: Array | None) -> np.int32:
    """Whether all of them start where 16 bytes can be read at once."""
    return np.int32(all(a is None or address(a) % VECTOR_BYTES == 0 for a in arrays))


def blocks_for(items: int, each: int) -> int:
    return math.ceil(items / each)
