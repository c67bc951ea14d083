"""Checks of batch norm's arguments at the public edge: what each must be, what it was, and the remedy."""

import math
from collections.abc import Mapping, Sequence
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
from bnkit.norm.segments import Segment


def check_options(
    train: Any,
    decay: Any,
    eps: Any,
    correction: Any,
    activation: Any,
    ghost: Any,
    reduce: Any,
    renorm: Any,
    in_place: Any,
) -> None:
    """The options of `batch_norm`, each by itself and with those that it excludes."""
    if (  # fast path: the types that nearly every call passes
        type(train) is bool
        and type(decay) is type(eps) is float
        and -math.inf < decay < math.inf
        and 0.0 <= eps < math.inf
        and type(correction) is int
        and 0 <= correction <= 1
        and (activation is None or (type(activation) is str and activation == "relu"))
        and ghost is reduce is renorm is None
        and in_place is False
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


def check_decay(decay: Any) -> None:
    """The decay of a layer. The function takes any finite float, as some momenta of PyTorch need."""
    if decay is None or (type(decay) is float and 0.0 <= decay <= 1.0):
        return
    check_number("decay", decay)
    if not 0.0 <= decay <= 1.0:  # NaN neither
        raise ValueError(
            f"decay must be a number from 0 to 1, or None for the cumulative average, got {shown(decay)}; it weighs "
            f"the old running statistics, so it is 1 - momentum for a momentum of PyTorch"
        )


def check_renorm(renorm: Any) -> None:
    if not isinstance(renorm, (tuple, list)) or len(renorm) != 2:
        raise TypeError(f"renorm must be None or (r_max, d_max), got {shown(renorm)}")
    for name, limit, least in zip(("r_max", "d_max"), renorm, (1.0, 0.0), strict=True):
        if not (isinstance(limit, (float, np.floating)) and limit == math.inf):
            check_real(f"renorm's {name}", limit, least=least)


def check_in_place(backend: Backend, x: Array, residual: Array | None, out: Array | None) -> None:
    """The arrays of an in-place call, before the checks that all arrays get."""
    for name, array, why in (
        ("residual", residual, "which recovers x from y; add it to y"),
        ("out", out, "which writes y over x; leave one out"),
    ):
        if array is not None:
            raise ValueError(f"{name} must be None with in_place=True, {why}")
    owner(x, "x")
    check_writeable("x", x, backend)


def check_input(x: Array, axis: int | tuple[int, ...], features: tuple[int, ...], dtype: str) -> None:
    """x fits a layer with these features, for data of `dtype`."""
    name = check_data("x", x)
    if name != dtype and parameter_dtype(name) != parameter_dtype(dtype):
        raise TypeError(f"x must fit a layer with dtype={dtype!r}, got {name}; convert it, or pass that dtype")
    if make_layout(tuple(x.shape), axis, None).parameters != features:
        raise ValueError(f"x must have {features} features at axis {axis}, got shape {tuple(x.shape)}")


def check_parameter(name: str, array: Array | None, x: Array, layout: Layout, *, wider: bool = False) -> None:
    """The shape and dtype of a parameter or running array follow from x. With `wider` it may also be float64."""
    if array is None:
        return
    if tuple(array.shape) != layout.parameters:
        raise ValueError(f"{name} must have shape {layout.parameters}, got {tuple(array.shape)}")
    dtype, of_x = dtype_name(array), dtype_name(x)
    expected = parameter_dtype(of_x)
    if dtype != expected and not (wider and dtype == "float64"):
        also = " or float64" if wider and expected == "float32" else ""
        raise TypeError(f"{name} must be {expected}{also} for {of_x} x, got {dtype}; convert it")


def check_parameters(x: Array, layout: Layout, parameters: Mapping[str, Array | None], *, train: bool) -> bool:
    """gamma, beta and the running arrays fit x. Returns whether there are running arrays."""
    mean, var = parameters["running_mean"], parameters["running_var"]
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ValueError(f"running_mean and running_var must come both or neither, got None for {missing}; pass both")
    if mean is None and not train:
        raise ValueError("train=False needs running_mean and running_var, got None; pass them, or train=True")
    for name, array in parameters.items():
        check_parameter(name, array, x, layout, wider=name.startswith("running"))
    if mean is None or var is None:
        return False
    if dtype_name(mean) != dtype_name(var):
        both = f"{dtype_name(mean)} and {dtype_name(var)}"
        raise TypeError(f"running_mean and running_var must have one dtype, got {both}; convert one")
    return True


def check_memory(x: Array, others: Mapping[str, Any], backend: Backend, *, moves: bool, over_x: bool) -> None:
    """No array that the call writes is read-only or overlaps another.

    moves: whether it writes the running arrays. over_x: whether `out` may be x.
    """
    out = others["out"]
    sources: dict[str, Any] = {**others, "out": None}
    if moves:
        read = {"x": x, **sources}
        for name in ("running_mean", "running_var"):
            running = read.pop(name)
            check_writeable(name, running, backend)
            check_apart(name, running, read, backend)
    if out is x and over_x:
        check_apart("x", out, sources, backend)
    elif out is not None:
        check_apart("out", out, {"x": x, **sources}, backend)


def check_enough(segments: Sequence[Segment], layout: Layout, correction: int) -> None:
    """The batch, or every segment of it, has enough elements for the running variance; an empty one moves nothing."""
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
