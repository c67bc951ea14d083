"""A .cu file as a module of kernels that run on NumPy arrays: what `cupy.RawModule` is on a device."""

import ctypes
import functools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cuda_host import arguments, schedules
from cuda_host.assembly import LARGEST, shared_arrays
from cuda_host.compiler import compiled, is_checked, text_of

_ORDERS = {"forward": 0, "reverse": 1, "random": 2}


class CudaHostError(RuntimeError):
    """What a device would have got wrong, hung in, or refused."""


class _Range(ctypes.Structure):
    _fields_ = (("first", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("argument", ctypes.c_int))


class _SharedArray(ctypes.Structure):
    _fields_ = (
        ("offset", ctypes.c_size_t),
        ("bytes", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("dynamic", ctypes.c_int),
    )


class _Launch(ctypes.Structure):
    """As in runtime/grid.hpp."""

    _fields_ = (
        ("call", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("cooperative", ctypes.c_int),
        ("checked", ctypes.c_int),
        ("order", ctypes.c_int),
        ("workers", ctypes.c_uint),
        ("seed", ctypes.c_uint64),
        ("arrays", ctypes.POINTER(_Range)),
        ("array_count", ctypes.c_size_t),
        ("error", ctypes.c_char_p),
        ("error_bytes", ctypes.c_size_t),
    )


class HostModule:
    """The kernels `names` of a .cu file, compiled into `folder` unless they are there.

    names: C++ name expressions, as "train<float, 2>". options: the device compiler's; only -D and -U count here.
    checked: a launch fails at the first race, access out of bounds or read of shared memory that was never written;
    about 30 times slower.
    """

    def __init__(
        self,
        path: Path,
        options: Sequence[str] = (),
        names: Sequence[str] = (),
        cooperative: bool = False,
        *,
        folder: Path,
        checked: bool = False,
    ) -> None:
        self.cooperative, self.checked = cooperative, is_checked(checked)
        self.names = tuple(names)
        self.path = compiled(path, options, names, folder, checked=checked)
        self.library = ctypes.CDLL(str(self.path))
        found, anchor = shared_arrays(self.path.read_bytes(), text_of(path))
        self.shared = (_SharedArray * len(found))(*((a.offset, a.size, a.name.encode(), a.dynamic) for a in found))
        self.library.cuda_host_shared_arrays(self.shared, ctypes.c_size_t(len(found)), ctypes.c_size_t(anchor))

    def get_function(self, name: str) -> "HostKernel":
        if name not in self.names:
            raise ValueError(f"the module has no kernel {name!r}; it was made with {', '.join(self.names)}")
        return HostKernel(self, name, self.names.index(name))


class HostKernel:
    """One kernel; calling it launches it, and returns when it is done."""

    def __init__(self, module: HostModule, name: str, number: int) -> None:
        self.module, self.name = module, name
        signature = module.library[f"cuda_host_signature_{number}"]
        signature.restype = ctypes.c_char_p
        self.signature = tuple(signature().decode().split())
        self._call = ctypes.cast(module.library[f"cuda_host_call_{number}"], ctypes.c_void_p).value

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0) -> None:
        arguments.check(self.name, self.signature, args)
        dimensions = [_three(self.name, "grid", grid, (2**31 - 1, 65535, 65535))]
        dimensions.append(_three(self.name, "block", block, (1024, 1024, 64)))
        if np.prod(dimensions[1]) > 1024 or not 0 <= shared_mem <= LARGEST:
            raise CudaHostError(
                f"{self.name}: a block may have 1024 threads and {LARGEST} bytes of shared memory, "
                f"got {dimensions[1]} and {shared_mem}"
            )
        staged = arguments.stage(args)
        values = [_value(a, staged) for a in args]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        ranges = (_Range * len(staged))(*((copy.address, copy.size, copy.argument) for copy in staged))
        schedule, error = schedules.current(), ctypes.create_string_buffer(1024)
        launch = _Launch(
            self._call,
            ctypes.addressof(pointers),
            *((ctypes.c_uint * 3)(*d) for d in dimensions),
            shared_mem,
            self.module.cooperative,
            self.module.checked,
            _ORDERS[schedule.order],
            1 if self.module.checked else schedule.workers,
            schedule.seed,
            ranges,
            len(staged),
            ctypes.addressof(error),
            len(error),
        )
        if self.module.library.cuda_host_launch(ctypes.byref(launch)):
            raise CudaHostError(f"{self.name}: {_with_line(self.module.path, error.value.decode())}")
        for copy in staged:
            if side := copy.damaged():
                raise CudaHostError(f"{self.name}: out of bounds: wrote {side} the array of argument {copy.argument}")
        arguments.put_back(staged)


def _value(argument: Any, staged: Sequence[arguments.Staged]) -> np.ndarray:
    """The bytes that the kernel reads for an argument."""
    if argument is None:
        return np.array(0, np.uint64)
    if isinstance(argument, np.ndarray):
        return np.array(arguments.address(argument, staged), np.uint64)
    return np.array(argument)


def _three(kernel: str, what: str, given: Sequence[int], largest: Sequence[int]) -> tuple[int, ...]:
    three = (*given, 1, 1, 1)[:3]
    if not 1 <= len(given) <= 3 or any(not 1 <= n <= most for n, most in zip(three, largest)):
        raise CudaHostError(f"{kernel}: the {what} may be from 1 to {tuple(largest)}, got {tuple(given)}")
    return tuple(int(n) for n in three)


def _with_line(library: Path, message: str) -> str:
    """The message with file and line for the place in the code, where addr2line can tell them."""
    return re.sub(r"<code (0x[0-9a-f]+)>", lambda found: f"[{_line(library, found[1])}]", message)


@functools.cache
def _line(library: Path, code: str) -> str:
    try:
        command = ["addr2line", "-e", str(library), code]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"{library.name} {code}"
    return answer.strip().rpartition("/")[2].partition(" ")[0]
