"""The CuPy backend without CuPy: its kernels and its launches, over arrays of the double."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bnkit.backend import Array, BackendError
from bnkit_cupy.launch import Launcher, Limits, instantiations
from bnkit_cupy.ops import KernelOps
from cuda_host import compiler
from cuda_host.device_array import DeviceArray, Namespace, to_device, to_host, unwrap
from cuda_host.host_module import HostModule

# Small, so that small arrays are cut into several blocks.
LIMITS = Limits(multiprocessors=6, cooperative=True)
# Nothing is read once that does not fit into one block.
TWO_READS = LIMITS._replace(cooperative=False)


class CudaHostBackend(KernelOps):
    """`limits` say what the device would be; `checked` is HostModule's."""

    name: ClassVar[str] = "cuda_host"
    array_module: ClassVar[str] = "cuda_host"
    folder: ClassVar[Path]  # where compiled kernels are kept

    def __init__(self, device: str | None = None, *, limits: Limits = LIMITS, checked: bool = False) -> None:
        if reason := compiler.missing_compiler():
            raise BackendError(reason, remedy="or leave out its tests")
        self.xp = Namespace()
        self.device = DeviceArray.device.id
        self.checked = checked
        self.launcher = Launcher(self.xp, self._load, limits, self.device)

    def _load(self, path: Path, options: Sequence[str], names: Sequence[str], cooperative: bool) -> Any:
        asked = (path, tuple(options), tuple(names), cooperative)
        if asked not in set(instantiations()):
            raise AssertionError(f"launch.instantiations() does not tell of {asked}")
        return _Module(HostModule(*asked, folder=self.folder, checked=self.checked))

    def prebuild(self) -> None:
        """Compile all kernels, at the same time and not each when it is first launched."""
        compiler.prebuild(instantiations(), self.folder, checked=self.checked)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        return a if isinstance(a, DeviceArray) and dtype in (None, a.dtype) else to_device(a, dtype)

    def to_numpy(self, a: Array) -> np.ndarray:
        return to_host(a)

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(np.shares_memory(*unwrap((a, b))))


class _Module:
    """Kernels that take DeviceArrays."""

    def __init__(self, module: HostModule) -> None:
        self._module = module

    def get_function(self, name: str) -> Any:
        kernel = self._module.get_function(name)

        def launch(grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0) -> None:
            kernel(grid, block, unwrap(tuple(args)), shared_mem)

        return launch
