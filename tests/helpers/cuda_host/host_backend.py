"""The CuPy backend without CuPy: its kernels and its launches, over arrays of the double."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bnkit.backend import Array, BackendError
from bnkit_cupy.launch import Launcher, Limits, Load, instantiations
from bnkit_cupy.ops import KernelOps
from cuda_host import compiler
from cuda_host.device_array import DeviceArray, Namespace, over, refuse_in_capture, to_device, to_host, unwrap
from cuda_host.host_module import HostModule

# Devices on which the shapes of the tests are read twice, by several blocks a tile, and once, from registers alone and
# from shared memory too.
TWO_READS = Limits(multiprocessors=4, cooperative=False, shared=0)
ONE_READ = Limits(multiprocessors=64, cooperative=True, shared=0)
SHARED = Limits(multiprocessors=2, cooperative=True, shared=227 * 1024)
DEVICES = {"two reads": TWO_READS, "one read": ONE_READ, "shared memory": SHARED}

needs_compiler = pytest.mark.skipif(bool(compiler.missing_compiler()), reason=compiler.missing_compiler())


class CudaHostBackend(KernelOps):
    """`limits` say what the device would be; `checked` is HostModule's. `load` compiles, where it is not HostModule.

    launches: the name of each kernel that was launched, and whether its blocks wait for each other.
    """

    name: ClassVar[str] = "cuda_host"
    array_module: ClassVar[str] = "cuda_host"
    folder: ClassVar[Path]  # where compiled kernels are kept

    def __init__(
        self, device: str | None = None, *, limits: Limits = ONE_READ, checked: bool = False, load: Load | None = None
    ) -> None:
        if load is None and (reason := compiler.missing_compiler()):
            raise BackendError(reason, remedy="or leave out its tests")
        self.xp = Namespace()
        self.device = DeviceArray.device.id
        self.checked = checked
        self.launches: list[tuple[str, bool]] = []
        self._compile = load or functools.partial(_compiled, folder=self.folder, checked=checked)
        self.launcher = Launcher(self.xp, self._load, limits, self.device)

    def _load(self, path: Path, options: tuple[str, ...], names: tuple[str, ...], cooperative: bool) -> Any:
        asked = (path, options, names, cooperative)
        if asked not in _known():
            raise AssertionError(f"launch.instantiations() does not tell of {asked}")
        refuse_in_capture("a module is loaded")
        return _Module(self._compile(*asked), self.launches, cooperative)

    def prebuild(self) -> None:
        """Compile all kernels, at the same time and not each when it is first launched."""
        compiler.prebuild(instantiations(), self.folder, checked=self.checked)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        return a if isinstance(a, DeviceArray) and dtype in (None, a.dtype) else to_device(a, dtype)

    def to_numpy(self, a: Array) -> np.ndarray:
        return to_host(a)

    def synchronize(self) -> None:
        refuse_in_capture("a synchronization")

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(np.shares_memory(*unwrap((a, b))))


class OverHost:
    """The ops of a backend over NumPy arrays, each a device array of the same memory: for what has its own place."""

    def __init__(self, backend: CudaHostBackend) -> None:
        self.backend, self.launches = backend, backend.launches

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = getattr(self.backend, name)
        return lambda *args, **options: unwrap(op(*over(args), **over(options)))


def ops_on(limits: Limits, *, checked: bool = False) -> OverHost:
    return OverHost(CudaHostBackend(limits=limits, checked=checked))


class _Module:
    """Kernels that take DeviceArrays; each launch is noted."""

    def __init__(self, module: Any, launches: list[tuple[str, bool]], cooperative: bool) -> None:
        self._module, self._launches, self._cooperative = module, launches, cooperative

    def get_function(self, name: str) -> Callable[..., None]:
        kernel = self._module.get_function(name)
        noted = (name.partition("<")[0].removeprefix("bnkit::"), self._cooperative)

        def launch(grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0) -> None:
            self._launches.append(noted)
            kernel(grid, block, unwrap(tuple(args)), shared_mem)

        return launch


@functools.cache
def _compiled(
    path: Path, options: tuple[str, ...], names: tuple[str, ...], cooperative: bool, *, folder: Path, checked: bool
) -> HostModule:
    """The module, loaded once in a process."""
    return HostModule(path, options, names, cooperative, folder=folder, checked=checked)


@functools.cache
def _known() -> frozenset[tuple[Path, tuple[str, ...], tuple[str, ...], bool]]:
    return frozenset(instantiations())
