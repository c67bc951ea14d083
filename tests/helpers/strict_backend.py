"""The stand-in for a GPU: array_api_strict on its second device, where host arrays and other libraries' names fail."""

from typing import Any, ClassVar

import array_api_strict
import numpy as np

from bnkit.backend import Array, Backend, BackendError

DEVICE = array_api_strict.Device("device1")
HOST = array_api_strict.Device("CPU_DEVICE")


class StrictBackend(Backend):
    """float32 and float64 only; every op is the reference."""

    name: ClassVar[str] = "strict"
    array_module: ClassVar[str] = "array_api_strict"

    def __init__(self, device: str | None = None) -> None:
        self.xp = array_api_strict
        self.device = DEVICE

    @classmethod
    def key_of(cls, array: Array) -> str:
        if array.device != DEVICE:
            raise BackendError(f"strict array on {array.device}", remedy=f"make it on {DEVICE}")
        return cls.name

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        if isinstance(a, np.ndarray):
            a = a.copy()  # array_api_strict wraps the memory; a device has its own
        return array_api_strict.asarray(a, dtype=dtype, device=DEVICE)

    def to_numpy(self, a: Array) -> np.ndarray:
        return np.asarray(array_api_strict.asarray(a, copy=True).to_device(HOST))

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(np.shares_memory(a._array, b._array))
