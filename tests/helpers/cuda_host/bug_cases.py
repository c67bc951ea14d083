"""The kernels of bugs.cu on data that show their bugs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BUGS = Path(__file__).resolve().parent / "bugs.cu"
_PAIRS = ["reverse_tile", "reverse_warp", "add_neighbours", "add_first_half", "add_halves", "sum_of_warp", "copy"]
_PAIRS += ["read_behind", "shift_tile", "shift_dynamic", "sum_of_tile", "wait_for_flag"]
_FENCES = ("true, true", "false, true", "true, false")
NAMES = (
    *(f"{kernel}<{right}>" for kernel in _PAIRS for right in ("true", "false")),
    *(f"sum_of_blocks<{fences}>" for fences in _FENCES),
    "sum_by_atomics",
    "count_by_atomics",
)
COOPERATIVE = ("reverse_blocks<true>", "reverse_blocks<false>")


class Run(NamedTuple):
    grid: int
    block: int
    args: tuple[Any, ...]
    result: int  # which argument
    shared_mem: int = 0


def x(count: int = 64) -> np.ndarray:
    return np.random.default_rng(count).normal(size=count).astype(np.float32) * 1e3


def zeros(count: int = 64, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(count, dtype)


def of(kernel: str) -> Run:
    """A launch of this kernel on arrays of its own."""
    name = kernel.partition("<")[0]
    if name in ("reverse_warp", "sum_of_tile", "sum_of_warp"):
        return Run(1, 32, (x(32), zeros(32)), 1)
    if name in ("copy", "read_behind"):
        return Run(1, 64, (x(48), zeros(48), np.int32(48)), 1)
    if name == "sum_of_blocks":
        return Run(7, 32, (x(7), np.full(7, np.nan, np.float32), zeros(1, np.uint32), zeros(1)), 3)
    if name == "reverse_blocks":
        return Run(5, 32, (x(160), zeros(160), zeros(1, np.uint32), zeros(160)), 3)
    if name == "sum_by_atomics":
        return Run(4, 64, (x(256), zeros(1)), 1)
    if name == "count_by_atomics":
        return Run(4, 64, (x(256), zeros(1, np.uint32)), 1)
    if name == "wait_for_flag":
        return Run(1, 2, (zeros(1, np.uint32), zeros(1)), 1)
    return Run(1, 64, (x(), zeros()), 1, 256 if name == "shift_dynamic" else 0)


def launched(module: Any, kernel: str) -> np.ndarray:
    run = of(kernel)
    module.get_function(kernel)((run.grid,), (run.block,), run.args, run.shared_mem)
    return run.args[run.result]
