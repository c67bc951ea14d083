"""Arrays that behave as CuPy's on a device: memory of their own, and no way to the host but `to_host`.

NumPy does the work; what CuPy refuses is refused: a NumPy array among the operands, `numpy.asarray` of these, and
within the capture of a stream all that copies from or to the host.
"""

import contextlib
import contextvars
import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from bnkit_cupy.exchange import host_array

_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
_UNARY = ("neg", "pos", "abs", "invert")
_TO_HOST = ("bool", "float", "int", "index", "complex")  # CuPy waits for the device, and reads the one element

_allocated: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("cuda_host_allocated", default=None)
_captures: contextvars.ContextVar[bool] = contextvars.ContextVar("cuda_host_captures", default=False)


@contextlib.contextmanager
def allocations(*, capture: bool = False) -> Iterator[list[int]]:
    """The bytes of each array that is made within it, as CuPy's pool is asked for them.

    capture: the stream is captured into a graph, and what CUDA cannot put there is refused.
    """
    sizes: list[int] = []
    tokens = (_allocated, _allocated.set(sizes)), (_captures, _captures.set(capture))
    try:
        yield sizes
    finally:
        for variable, token in tokens:
            variable.reset(token)  # type: ignore[arg-type]


def refuse_in_capture(what: str) -> None:
    if _captures.get():
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while the stream is captured")


class DeviceArray:
    """An array on the double of a CUDA device."""

    __array_ufunc__ = None  # NumPy's operators leave those with NumPy scalars to this class
    device = SimpleNamespace(id="cuda_host")

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory
        sizes = _allocated.get()
        if sizes is not None and memory.base is None:
            sizes.append(memory.nbytes)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise TypeError("an array on a device becomes no NumPy array by itself; use backend.to_numpy()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of NumPy's protocols a device has none
            raise AttributeError(name)
        return wrap(getattr(self._memory, name))

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._memory.ctypes.data)

    def __getitem__(self, key: Any) -> "DeviceArray":
        found: DeviceArray = wrap(self._memory[unwrap(key)])
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self._memory[unwrap(key)] = unwrap(value)

    def __len__(self) -> int:
        return len(self._memory)

    def __iter__(self) -> Any:
        return (self[i, ...] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"DeviceArray({self._memory!r})"

    __hash__ = None  # type: ignore[assignment]


def wrap(value: Any) -> Any:
    """What NumPy gave, as the device gives it: a scalar is an array, a function is over DeviceArrays."""
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    if isinstance(value, tuple):
        return _within(value, wrap)
    if callable(value) and not isinstance(value, type):
        return lambda *args, **options: wrap(value(*unwrap(args), **unwrap(options)))
    return value


def unwrap(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value._memory
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: the array lies on the host")  # as CuPy says it
    return _within(value, unwrap)


def over(value: Any) -> Any:
    """NumPy's arrays as arrays on the device over the same memory."""
    return DeviceArray(value) if isinstance(value, np.ndarray) else _within(value, over)


def _within(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tuple, a list or a dict with each of its values changed; all else as it is."""
    if isinstance(value, (tuple, list)):
        parts = map(change, value)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return {k: change(v) for k, v in value.items()} if isinstance(value, dict) else value


def to_device(a: Any, dtype: Any = None) -> DeviceArray:
    if not isinstance(a, DeviceArray):
        refuse_in_capture("a copy from the host")
    return DeviceArray(np.array(a._memory if isinstance(a, DeviceArray) else host_array(a), dtype=dtype))


def to_host(a: DeviceArray) -> np.ndarray:
    refuse_in_capture("a copy to the host")
    return np.array(a._memory)


class Namespace:
    """The module `cupy`: NumPy's functions over DeviceArrays."""

    ndarray = DeviceArray
    asarray = staticmethod(to_device)

    def __getattr__(self, name: str) -> Any:
        return wrap(getattr(np, name))


def _define() -> None:
    def binary(function: Any, swapped: bool) -> Any:
        def method(self: DeviceArray, other: Any) -> Any:
            a, b = self._memory, unwrap(other)
            return wrap(function(b, a) if swapped else function(a, b))

        return method

    def in_place(function: Any) -> Any:
        def method(self: DeviceArray, other: Any) -> DeviceArray:
            self._memory = function(self._memory, unwrap(other))
            return self

        return method

    for name in (*_BINARY, *_COMPARE):
        plain = getattr(operator, f"__{name}__")
        setattr(DeviceArray, f"__{name}__", binary(plain, False))
        if name in _BINARY:
            setattr(DeviceArray, f"__r{name}__", binary(plain, True))
            setattr(DeviceArray, f"__i{name}__", in_place(getattr(operator, f"__i{name}__")))
    for name in (*_UNARY, *_TO_HOST):
        setattr(DeviceArray, f"__{name}__", _unary(name))


def _unary(name: str) -> Any:
    def method(self: DeviceArray) -> Any:
        if name in _TO_HOST:
            refuse_in_capture("a copy to the host")
        result = getattr(self._memory, f"__{name}__")()
        return result if name in _TO_HOST else wrap(result)

    return method


_define()
