"""What the kernels need of CuPy: modules by its runtime compiler, and the limits of a device."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .launch import KERNELS, Limits

_NULL = np.uint64(0)


def raw_module_loader(cupy: Any) -> Callable[[Path, tuple[str, ...], tuple[str, ...], bool], Any]:
    """`launch.Load` by NVRTC; CuPy keeps what it compiled on disk, by source, options and architecture."""
    texts = hashlib.sha256(b"\0".join(p.read_bytes() for p in sorted(KERNELS.glob("*.cu*")))).hexdigest()

    def load(path: Path, options: tuple[str, ...], names: tuple[str, ...], cooperative: bool) -> Any:
        # CuPy's key knows nothing of included files, so an option tells of them.
        own = (f"-I{KERNELS}", f"-DBNKIT_KERNELS={texts[:16]}")
        return RawKernels(
            cupy.RawModule(
                code=path.read_text(encoding="utf-8"),
                options=(*options, *own),
                name_expressions=names,
                enable_cooperative_groups=cooperative,
            )
        )

    return load


class RawKernels:
    """A RawModule whose kernels take None for a null pointer, for which CuPy hands the driver no argument at all.

    And any shared memory that the device has: of more than 48 KB a kernel must be told before it is launched.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def get_function(self, name: str) -> Callable[..., None]:
        kernel = self._module.get_function(name)

        told = 0

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0) -> None:
            nonlocal told
            if shared > told:
                kernel.max_dynamic_shared_size_bytes = told = shared
            kernel(grid, block, tuple(_NULL if a is None else a for a in arguments), shared_mem=shared)

        return launch


def limits_of(cupy: Any, device: int) -> Limits:
    found = cupy.cuda.Device(device).attributes
    return Limits(
        multiprocessors=found["MultiProcessorCount"],
        cooperative=bool(found["CooperativeLaunch"]),
        shared=found["MaxSharedMemoryPerBlockOptin"],
    )
