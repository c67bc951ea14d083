"""Checks of batch norm's arguments at the public edge: what each must be, what it was, and the remedy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, Layout, dtype_name, owner
from bnkit.backend.checks import (
    check_apart,
    check_bool,
    check_data,
    check_function,
    check_int,
    check_number,
    check_real,
    check_writeable,
    parameter_dtype,
)
from bnkit.backend.layout import make_layout
from bnkit.backend.messages import shown
from bnkit.norm.ghost import Segment

_FLOAT32 = np.dtype("float32")


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
