"""Checks at the public edge: what an argument must be, what it was, and the remedy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, backend_of, dtype_name, owner
from bnkit.backend.layout import is_int, memory_order, overlaps_itself
from bnkit.backend.messages import shown

FLOATS = ("float16", "bfloat16", "float32", "float64")
_FLOAT32 = np.dtype("float32")
_ROWS_AT_ONCE = 1024


def parameter_dtype(dtype: str) -> str:
    """The dtype of parameters and statistics for data of `dtype`, by name."""
    return "float64" if dtype == "float64" else "float32"


def common_backend(**arrays: Array | None) -> Backend:
    """The one backend of these arguments, of which all but the first may be None."""
    return one_backend(tuple(arrays), tuple(arrays.values()))


def one_backend(names: tuple[str, ...], arrays: tuple[Array | None, ...]) -> Backend:
    """As `common_backend`, with the names in a tuple of their own."""
    try:
        if arrays[0] is not None:
            return backend_of(*arrays)
    except TypeError:
        pass  # to be said by name
    first = owner(arrays[0], names[0])
    for name, array in zip(names[1:], arrays[1:], strict=True):
        if array is not None and (other := owner(array, name)) is not first:
            raise TypeError(
                f"{names[0]} and {name} must be of one backend, got {first.key} and {other.key}; "
                f"move one by backend.asarray()"
            )
    return first


def check_array(name: str, array: Array) -> Backend:
    """The backend of an argument that must be an array of floats."""
    backend = owner(array, name)
    check_data(name, array)
    return backend


def check_cache(dy: Array, cache: Any, *, axes: int = 0) -> Backend:
    """The backend of the gradient dy and of the cache of a layer, an array with at least so many axes."""
    if not hasattr(cache, "dtype") or getattr(cache, "ndim", -1) < axes:
        raise TypeError(f"cache must be what forward returned, got {shown(cache)}; pass its second value")
    backend = common_backend(dy=dy, cache=cache)
    check_data("dy", dy)
    return backend


def check_gradient(dy: Array, shape: tuple[int, ...]) -> None:
    if tuple(dy.shape) != shape:
        raise ValueError(f"dy must have the shape of y, {shape}, got {tuple(dy.shape)}")


def check_key(key: Any) -> None:
    """A key of random draws, if there is one."""
    if key is not None and not (isinstance(key, tuple) and len(key) == 3):
        raise ValueError(f"key must be None or a tuple (seed, layer, step), got {shown(key)}")


def check_bool(name: str, value: Any) -> None:
    if type(value) is not bool and type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")


def check_function(name: str, value: Any, takes: str) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function {takes}, got {shown(value)}")


def check_int(name: str, value: Any, *, least: int = 1, below: float = math.inf) -> None:
    if not is_int(value):
        raise TypeError(f"{name} must be an int, got {shown(value)}")
    if not least <= value < below:
        bound = "" if below == math.inf else f" and below {below}"
        raise ValueError(f"{name} must be at least {least}{bound}, got {value}")


def check_number(name: str, value: Any) -> None:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) > 0:
        raise TypeError(f"{name} must be a number, got {shown(value)}")


def check_real(name: str, value: Any, *, least: float = -math.inf, below: float = math.inf) -> None:
    """`value` is a finite number with least ≤ value < below."""
    check_number(name, value)
    if not (least <= value < below and abs(value) < math.inf):
        bounds = "" if least == -math.inf else f" of at least {least:g}"
        bounds += "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name} must be a finite number{bounds}, got {shown(value)}")


def dtype_argument(dtype: Any, choices: Sequence[str], argument: str = "dtype") -> str:
    """The name of a dtype that was given by name, as a NumPy dtype, or as a scalar type."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", repr(dtype))
    check_choice(argument, name, choices)
    return str(name)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}")


def check_data(name: str, x: Array) -> str:
    """The name of the dtype of x."""
    if (dtype := dtype_name(x)) not in FLOATS:
        raise TypeError(f"{name} must be one of {', '.join(FLOATS)}, got {dtype}; convert it")
    return dtype


@np.errstate(over="ignore")
def check_finite(name: str, a: Any, dtype: str) -> None:
    """ValueError if a host float array holds NaN or infinity, or becomes infinite in `dtype`; no device is read."""
    if not isinstance(a, np.ndarray) or a.ndim == 0 or kind_of(a) != "float":
        return
    for start in range(0, a.shape[0], _ROWS_AT_ONCE):
        finite = np.isfinite(a[start : start + _ROWS_AT_ONCE].astype(dtype, copy=False))
        if not finite.all():
            place = tuple(int(i[0]) for i in np.nonzero(~finite))
            place = (start + place[0], *place[1:])
            got = f"{a[place]} at {list(place)}"
            raise ValueError(
                f"{name} must hold finite numbers in {dtype}, got {got}; drop the row, or replace the value"
            )


def check_like(name: str, array: Array, x: Array) -> None:
    if tuple(array.shape) != tuple(x.shape):
        raise ValueError(f"{name} must have the shape of x, {tuple(x.shape)}, got {tuple(array.shape)}")
    if array.dtype is not x.dtype and dtype_name(array) != dtype_name(x):
        raise TypeError(f"{name} must have the dtype of x, {dtype_name(x)}, got {dtype_name(array)}; convert it")


def check_writeable(name: str, array: Array, backend: Backend) -> None:
    """An array of the caller can take one value an element: it is not read-only, and no two elements share memory."""
    if not backend.writeable(array):
        raise ValueError(f"{name} must be writeable, got a read-only array; pass a copy")
    if overlaps_itself(array):
        raise ValueError(
            f"{name} must not overlap itself in memory, got strides {tuple(array.strides)} of shape "
            f"{tuple(array.shape)}; pass a copy"
        )


def check_out(out: Array, x: Array, backend: Backend) -> None:
    """`out` has the shape, dtype and memory layout that a new result would have."""
    check_like("out", out, x)
    check_writeable("out", out, backend)
    strides = getattr(x, "strides", None)
    if strides is None or strides == out.strides or 0 in x.shape or _strides(out) == _strides(x):
        return
    if memory_order(x) is not None:
        raise ValueError(
            f"out must have the memory layout of x, strides {x.strides}, got {out.strides}; use empty_like"
        )
    if not out.flags.c_contiguous:
        raise ValueError(
            f"out must be C contiguous for an x that is not dense, with strides {x.strides}, got {out.strides}; "
            f"use empty(x.shape, x.dtype)"
        )


def check_apart(name: str, array: Array, others: Mapping[str, Array | None], backend: Backend) -> None:
    """A write to `array` changes none of the others."""
    for other_name, other in others.items():
        if other is not None and backend.overlap(array, other):
            raise ValueError(f"{name} must not overlap {other_name} in memory; pass another array")


def _strides(a: Array) -> tuple[int, ...]:
    return tuple(s for s, n in zip(a.strides, a.shape, strict=True) if n > 1)


def kind_of(a: Any) -> str:
    """ "integer", "float" or "other" by the name of the dtype."""
    name = dtype_name(a) if hasattr(a, "dtype") else ""
    return "integer" if name.startswith(("int", "uint")) else "float" if name in FLOATS else "other"
