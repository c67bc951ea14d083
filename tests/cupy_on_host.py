"""The ops of the CuPy backend, with their kernels executed on the CPU over NumPy arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host.compiler import missing_compiler
from cuda_host.host_module import HostModule

from bnkit_cupy.launch import Launcher, Limits
from bnkit_cupy.ops import KernelOps

# Devices on which the shapes of the tests are read twice, by several blocks a tile, and once.
TWO_READS = Limits(multiprocessors=4, cooperative=False)
ONE_READ = Limits(multiprocessors=64, cooperative=True)
DEVICES = {"two reads": TWO_READS, "one read": ONE_READ}

needs_compiler = pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())
_modules: dict[tuple[Any, ...], HostModule] = {}


class HostOps(KernelOps):
    name = "cupy-on-host"
    array_module = "numpy"

    def __init__(self, limits: Limits, load: Callable[..., Any]) -> None:
        self.xp = np
        self.device = "cpu"
        self.launches: list[tuple[str, bool]] = []
        self.launcher = Launcher(np, self._telling(load), limits, "cpu")

    def _telling(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def told(path: Path, options: tuple[str, ...], names: tuple[str, ...], cooperative: bool) -> Any:
            return _Told(load(path, options, names, cooperative), self.launches, cooperative)

        return told


class _Told:
    """A module that notes the name of each kernel that is launched, and whether its blocks wait for each other."""

    def __init__(self, module: Any, launches: list[tuple[str, bool]], cooperative: bool) -> None:
        self.module, self.launches, self.cooperative = module, launches, cooperative

    def get_function(self, name: str) -> Callable[..., None]:
        kernel = self.module.get_function(name)

        def launch(*arguments: Any) -> None:
            self.launches.append((name.partition("<")[0].removeprefix("bnkit::"), self.cooperative))
            kernel(*arguments)

        return launch


def ops_on(limits: Limits, folder: Path, *, checked: bool = False) -> HostOps:
    """A new backend on a device of these limits; modules are compiled into `folder`, and loaded once."""

    def load(path: Path, options: tuple[str, ...], names: tuple[str, ...], cooperative: bool) -> HostModule:
        key = (path, names, cooperative, checked)
        if key not in _modules:
            _modules[key] = HostModule(path, options, names, cooperative, folder=folder, checked=checked)
        return _modules[key]

    return HostOps(limits, load)
