"""A CuPy of two devices whose arrays only say what they were made of, and the CuPy backend over it."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from bnkit_cupy import CupyBackend


class CupyArray:
    def __init__(self, source: Any, device: int, dtype: Any = None) -> None:
        self.source, self.device, self.dtype = source, SimpleNamespace(id=device), dtype


class FakeCupy:
    """Device 0 is current at the start; a stream's number is a hundred times its device's."""

    ndarray = CupyArray

    def __init__(self) -> None:
        self.current = 0
        self.cuda = SimpleNamespace(Device=self._device)
        self.calls: list[str] = []

    @contextlib.contextmanager
    def _device(self, number: int) -> Iterator[None]:
        before, self.current = self.current, number
        yield
        self.current = before

    def from_dlpack(self, a: Any) -> CupyArray:
        self.calls.append("from_dlpack")
        return CupyArray(a.__dlpack__(stream=100 * self.current), self.current)

    def asarray(self, a: Any, dtype: Any = None) -> CupyArray:
        self.calls.append("asarray")
        if isinstance(a, CupyArray):
            return a
        if hasattr(a, "__cuda_array_interface__"):
            return CupyArray(a, a.lies_on)
        return CupyArray(np.array(a, dtype=dtype), self.current)


def backend(device: int = 0) -> Any:
    made = object.__new__(CupyBackend)
    made.xp, made.device = FakeCupy(), device
    return made
