"""Checks at the public edge: what an argument must be, what it was, and the remedy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .backend import Array, Backend, backend_of, dtype_name, owner
from .ghost import Segment
from .layout import Layout, is_int, make_layout, memory_order, overlaps_itself
from .messages import shown

FLOATS = ("float16", "bfloat16", "float32", "float64")
_FLOAT32 = np.dtype("float32")
_ROWS_AT_ONCE = 1024


def parameter_dtype(dtype: str) -> str:
    """The dtype of parameters and statistics for data of `dtype`, by name."""
    return "float64" if dtype == "float64" else "float32"


def check_options(
    *, train: Any, decay: Any, eps: Any, correction: Any, activation: Any, ghost: Any, reduce: Any
) -> None:
    """The options of `batch_norm`; those of the types that nearly every call has are told good at once."""
    if (
        type(train) is bool
        and type(decay) is type(eps) is float
        and -math.inf < decay < math.inf
        and 0.0 <= eps < math.inf
        and type(correction) is int
        and 0 <= correction <= 1
        and (activation is None or (type(activation) is str and activation == "relu"))
        and ghost is reduce is None
    ):
        return
    check_bool("train", train)
    if decay is None:
        raise ValueError("decay must be a finite float, got None; the cumulative average is BatchNorm(decay=None)")
    check_real("decay", decay)
    check_real("eps", eps, least=0.0)
    check_int("correction", correction, least=0, below=2)
    if activation is not None and not (isinstance(activation, str) and activation == "relu"):
        raise ValueError(f"activation must be None or 'relu', got {shown(activation)}")
    if ghost is not None:
        check_int("ghost", ghost)
    if reduce is not None:
        check_function("reduce", reduce, "of an array")
    if ghost is not None and reduce is not None:
        raise ValueError("ghost and reduce must not be given together; leave one out")


def check_decay(decay: Any) -> None:
    """The decay of a layer. The function takes any finite float, for odd momenta of PyTorch."""
    if decay is None or (type(decay) is float and 0.0 <= decay <= 1.0):
        return
    check_number("decay", decay)
    if not 0.0 <= decay <= 1.0:  # NaN neither
        raise ValueError(
            f"decay must be a number from 0 to 1, or None for the cumulative average, got {shown(decay)}; it weighs "
            f"the old running statistics, so it is 1 - momentum for a momentum of PyTorch"
        )


def check_composed(*, renorm: Any, in_place: Any, ghost: Any, activation: Any) -> None:
    """The options of `batch_norm` that most calls do not have, and what does not go with them."""
    if renorm is not None:
        check_renorm(renorm)
    check_bool("in_place", in_place)
    for name, other in (("ghost", ghost is not None), ("in_place=True", in_place)):
        if renorm is not None and other:
            raise ValueError(f"renorm and {name} must not be given together; leave one out")
    if in_place and activation is not None:
        raise ValueError(
            f"activation must be None with in_place=True, which recovers x from y, got {shown(activation)}; "
            f"apply it to y"
        )


def check_renorm(renorm: Any) -> None:
    if not isinstance(renorm, (tuple, list)) or len(renorm) != 2:
        raise TypeError(f"renorm must be None or (r_max, d_max), got {shown(renorm)}")
    for name, limit, least in zip(("r_max", "d_max"), renorm, (1.0, 0.0), strict=True):
        if not (isinstance(limit, (float, np.floating)) and limit == math.inf):
            check_real(f"renorm's {name}", limit, least=least)


def check_in_place(backend: Backend, x: Array, residual: Array | None, out: Array | None) -> None:
    """What batch norm over its own input takes; the arrays themselves are checked as any others."""
    for name, array, why in (
        ("residual", residual, "which recovers x from y; add it to y"),
        ("out", out, "which writes y over x; leave one out"),
    ):
        if array is not None:
            raise ValueError(f"{name} must be None with in_place=True, {why}")
    owner(x, "x")
    check_writeable("x", x, backend)


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


def check_input(x: Array, axis: int | tuple[int, ...], features: tuple[int, ...], dtype: str) -> None:
    """x is what a layer with so many features, for data of `dtype`, takes."""
    name = check_data("x", x)
    if name != dtype and parameter_dtype(name) != parameter_dtype(dtype):
        raise TypeError(f"x must fit a layer with dtype={dtype!r}, got {name}; convert it, or pass that dtype")
    if make_layout(tuple(x.shape), axis, None).parameters != features:
        raise ValueError(f"x must have {features} features at axis {axis}, got shape {tuple(x.shape)}")


def check_parameter(name: str, array: Array | None, x: Array, layout: Layout, *, wider: bool = False) -> None:
    """A parameter or running array, if given: its shape and dtype follow from x; or it may be float64 (`wider`)."""
    if array is None:
        return
    if tuple(array.shape) != layout.parameters:
        raise ValueError(f"{name} must have shape {layout.parameters}, got {tuple(array.shape)}")
    if array.dtype is x.dtype is _FLOAT32:
        return
    found, dtype = dtype_name(array), parameter_dtype(dtype_name(x))
    if found != dtype and not (wider and found == "float64"):
        also = " or float64" if wider and dtype == "float32" else ""
        raise TypeError(f"{name} must be {dtype}{also} for {dtype_name(x)} x, got {found}; convert it")


def check_running(
    x: Array, layout: Layout, mean: Array | None, var: Array | None, backend: Backend, *, train: bool
) -> bool:
    """Whether there are running arrays, both of them; in training they will be written."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ValueError(f"running_mean and running_var must come both or neither, got None for {missing}; pass both")
    if mean is None or var is None:
        if not train:
            raise ValueError("train=False needs running_mean and running_var, got None; pass them, or train=True")
        return False
    for name, array in (("running_mean", mean), ("running_var", var)):
        check_parameter(name, array, x, layout, wider=True)
        if train:
            check_writeable(name, array, backend)
            check_apart(name, array, {"x": x}, backend)
    if dtype_name(mean) != dtype_name(var):
        both = f"{dtype_name(mean)} and {dtype_name(var)}"
        raise TypeError(f"running_mean and running_var must have one dtype, got {both}; convert one")
    if train:
        check_apart("running_mean", mean, {"running_var": var}, backend)
    return True


def check_enough(segments: Sequence[Segment], layout: Layout, correction: int) -> None:
    """The batch, or every segment of it, has elements enough for the running variance; an empty one moves nothing."""
    for start, stop, parts in segments or (Segment(0, layout.shape[1], 1),):
        count = (stop - start) // parts * layout.shape[3]
        if 0 < count <= correction:
            raise ValueError(
                f"x must have more than {correction} element a channel to move running_var with correction="
                f"{correction}, got {count}{' in a ghost batch' if len(segments) > 1 or parts > 1 else ''}; "
                f"use a larger batch, or correction=0"
            )


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
    for other_name, other in others.items():
        if other is not None and backend.overlap(array, other):
            raise ValueError(f"{name} must not overlap {other_name} in memory; pass another array")


def check_mask(mask: Array, x: Array, layout: Layout, backend: Backend) -> Array:
    """The mask with x.ndim dimensions."""
    if dtype_name(mask) != "bool":
        raise TypeError(f"mask must be bool, True where an element counts, got {dtype_name(mask)}; pass mask != 0")
    batch = x.shape[layout.batch]
    if mask.ndim == 1 < x.ndim and mask.shape[0] == batch:
        return backend.xp.reshape(mask, tuple(n if a == layout.batch else 1 for a, n in enumerate(x.shape)))
    if mask.ndim != x.ndim or any(m not in (1, n) for m, n in zip(mask.shape, x.shape, strict=True)):
        raise ValueError(
            f"mask must have the shape of the batch axis, ({batch},), or be broadcastable to x, {tuple(x.shape)}, with "
            f"as many dimensions, got {tuple(mask.shape)}"
        )
    return mask


def _strides(a: Array) -> tuple[int, ...]:
    return tuple(s for s, n in zip(a.strides, a.shape, strict=True) if n > 1)


def kind_of(a: Any) -> str:
    """ "integer", "float" or "other" by the name of the dtype."""
    name = dtype_name(a) if hasattr(a, "dtype") else ""
    return "integer" if name.startswith(("int", "uint")) else "float" if name in FLOATS else "other"
