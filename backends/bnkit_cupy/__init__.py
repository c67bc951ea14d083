"""CuPy arrays on a CUDA device, by the kernels of `kernels/`; `ops.py` says what is left to `bnkit.reference`.

The kernels have not yet run on a GPU: the tests execute them on the CPU.
"""

import contextlib
import ctypes
import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from bnkit.backend import Array, BackendError

from .device import limits_of, raw_module_loader
from .exchange import device_array, host_array
from .launch import Launcher
from .ops import KernelOps

_INSTALL = (
    "in a clone of the repository, run pip install '.[cuda12]' or '.[cuda13]', whichever fits the driver (nvidia-smi "
    "shows it)"
)


class CupyBackend(KernelOps):
    name: ClassVar[str] = "cupy"
    array_module: ClassVar[str] = "cupy"

    def __init__(self, device: str | None = None) -> None:
        self.xp = usable_cupy()
        self.device = int(device or 0)
        count = self.xp.cuda.runtime.getDeviceCount()
        if not 0 <= self.device < count:
            raise BackendError(
                f"backend 'cupy:{self.device}' has no device; this machine has {count}", remedy="choose one below that"
            )
        _try_device(self.xp, self.device)

    @functools.cached_property
    def launcher(self) -> Launcher:
        return Launcher(self.xp, raw_module_loader(self.xp), limits_of(self.xp, self.device), self.device)

    @property
    def key(self) -> str:
        return f"cupy:{self.device}"

    @classmethod
    def owns(cls, array_type: type) -> bool:
        return issubclass(array_type, importlib.import_module("cupy").ndarray)

    @classmethod
    def key_of(cls, array: Any) -> str:
        device = array.device.id
        current = importlib.import_module("cupy").cuda.runtime.getDevice()
        if device != current:  # CuPy computes on the current device, wherever the array lies
            raise BackendError(
                f"the array lies on CUDA device {device}, but device {current} is current",
                remedy=f"work within bnkit.use_backend('cupy:{device}') or cupy.cuda.Device({device})",
            )
        return f"cupy:{device}"

    @classmethod
    def resolve(cls, device: str | None) -> str:
        if device is None:
            return f"cupy:{usable_cupy().cuda.runtime.getDevice()}"
        if not device.isdecimal():
            raise BackendError(f"backend 'cupy:{device}' names no device", remedy="write a number, as in 'cupy:0'")
        return f"cupy:{int(device)}"

    def details(self) -> dict[str, Any]:
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self.device)
        return {
            "device": f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB",
            "libraries": {
                "cupy": self.xp.__version__,
                "CUDA runtime": _version(runtime.runtimeGetVersion()),
                "CUDA driver": _version(runtime.driverGetVersion()),
            },
            "threads": None,
            "simd": None,
            "compiled_kernels": True,
            "caches": {"L2": properties["l2CacheSize"]},
        }

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """`a` from the host, or from a library whose arrays lie on this device: then without a copy."""
        with self.xp.cuda.Device(self.device):
            found = device_array(self.xp, a, self.device)
            return self.xp.asarray(host_array(a) if found is None else found, dtype=dtype)

    def to_numpy(self, a: Array) -> np.ndarray:
        host: np.ndarray = self.xp.asnumpy(a)
        return host

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.device).synchronize()

    def elapsed(self, call: Callable[[], object], repeat: int = 1) -> float:
        with self.xp.cuda.Device(self.device):
            start, end = self.xp.cuda.Event(), self.xp.cuda.Event()
            start.record()
            for _ in range(repeat):
                call()
            end.record()
            end.synchronize()
        return float(self.xp.cuda.get_elapsed_time(start, end)) / 1e3  # CUDA counts milliseconds

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        device: contextlib.AbstractContextManager[Any] = self.xp.cuda.Device(self.device)
        return device

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(self.xp.may_share_memory(a, b))


def usable_cupy() -> Any:
    """The module cupy with at least one device; BackendError with the cause and the remedy where there is none."""
    if importlib.util.find_spec("cupy") is None:
        raise BackendError("backend 'cupy' needs the package CuPy", remedy=_INSTALL, hardware=_device_present())
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # CuPy raises whatever its shared libraries do
        raise BackendError(
            f"backend 'cupy' cannot import CuPy ({_first_line(error)})", remedy=_INSTALL, hardware=_device_present()
        ) from error
    if int(cupy.__version__.partition(".")[0]) < 14:
        raise BackendError(
            f"backend 'cupy' needs CuPy 14 or newer, found {cupy.__version__}",
            remedy=_INSTALL,
            hardware=_device_present(),
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "cudaErrorNoDevice" in str(error):
            raise _no_device() from error
        raise BackendError(
            f"backend 'cupy' finds no usable NVIDIA driver ({_first_line(error)})",
            remedy="install or update the NVIDIA driver, or choose BNKIT_BACKEND=numpy",
            hardware=_device_present(),
        ) from error
    if count == 0:
        raise _no_device()
    return cupy


def _no_device() -> BackendError:
    return BackendError(
        "backend 'cupy' finds no CUDA device",
        remedy="see whether CUDA_VISIBLE_DEVICES hides it, or choose BNKIT_BACKEND=numpy",
    )


def _try_device(cupy: Any, device: int) -> None:
    """Run one small kernel: NVRTC or the CUDA headers may be missing although the device answers."""
    try:
        with cupy.cuda.Device(device):
            cupy.cuda.nvrtc.getVersion()
            (cupy.arange(2, dtype=cupy.float32) * 2 + 1).sum().item()
    except Exception as error:  # NVRTC, compiler, driver and loader errors share no base class
        raise BackendError(
            f"backend 'cupy' cannot run a kernel on device {device} ({_first_line(error)})",
            remedy="run pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]' for NVRTC and the CUDA headers",
            hardware=True,
        ) from error


def _device_present() -> bool:
    """Whether the driver itself counts a device, asked without CuPy."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
