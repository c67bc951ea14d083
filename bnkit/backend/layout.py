"""How an array's memory reads as the 4-D view `(groups, rows, channels, inner)` that every batch-norm op sees."""

import math
import operator
from functools import lru_cache
from typing import Any, NamedTuple

from bnkit.backend.messages import shown
from bnkit.reference import Array


class Layout(NamedTuple):
    """One way to walk an array: `order` lists its axes from slowest to fastest, `shape` is the 4-D view."""

    order: tuple[int, ...]
    shape: tuple[int, int, int, int]
    dims: tuple[int, ...]  # the array's shape, in `order`
    inverse: tuple[int, ...]  # the permutation that undoes `order`
    memory: tuple[int, ...]  # how a result lies in memory; other than `order` only where no view without a copy exists
    axes: tuple[int, ...]  # the axes of the parameters, sorted
    batch: int  # the axis of the batch: the first one that is reduced
    parameters: tuple[int, ...]  # the shape of the parameters
    flat: tuple[int, int]  # their shape as an op takes them: (groups, channels)
    elements: int  # of a channel
    plain: bool  # all orders are the array's own: `view` and `restore` are a reshape

    def view(self, xp: Any, a: Array) -> Array:
        """`a` as `(groups, rows, channels, inner)`, C contiguous; a copy only where its memory is not in `order`."""
        in_order = self.plain or self.order == tuple(range(a.ndim))
        return contiguous(xp, a if in_order else xp.permute_dims(a, self.order), self.shape)

    def restore(self, xp: Any, view: Array) -> Array:
        """The inverse of `view`: the array in its own shape."""
        a = reshape(xp, view, self.dims)
        if self.plain:
            return a
        if self.order != self.inverse or self.order != tuple(range(len(self.order))):
            a = xp.permute_dims(a, self.inverse)
        if self.memory != self.order:
            a = xp.permute_dims(xp.ascontiguousarray(xp.permute_dims(a, self.memory)), _inverse(self.memory))
        return a


def reshape(xp: Any, a: Array, shape: tuple[int, ...]) -> Array:
    """By the array's own method where it has one: NumPy's function takes six times as long."""
    method = getattr(a, "reshape", None)
    return xp.reshape(a, shape) if method is None else method(shape)


def contiguous(xp: Any, a: Array, shape: tuple[int, ...]) -> Array:
    """`a` in this shape, C contiguous and aligned, as a kernel reads it; a copy only where it is not so already."""
    a = reshape(xp, a, shape)
    return xp.array(a, order="C") if is_contiguous(a) is False else a


def is_contiguous(a: Array) -> bool | None:
    """Whether `a` is C contiguous and aligned; None where its library does not tell."""
    flags = getattr(a, "flags", None)
    return None if flags is None else flags.c_contiguous and getattr(flags, "aligned", True)


def overlaps_itself(a: Array) -> bool:
    """Whether two elements of `a` may share memory: False only where its strides rule it out.

    Every view by slices, transposes and reshapes passes. Strides count bytes, as NumPy's and CuPy's do. Arrays without
    strides count as not overlapping.
    """
    strides = getattr(a, "strides", None)
    if strides is None or a.flags.c_contiguous:
        return False
    reach = a.itemsize  # the bytes from the first to the last element of the axes so far
    for stride, n in sorted((abs(stride), n) for stride, n in zip(strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def is_int(value: Any) -> bool:
    """Whether `value` is a whole number, by its type alone: an array on a device is not read."""
    if isinstance(value, bool) or getattr(value, "ndim", 0) > 0:
        return False
    dtype = getattr(value, "dtype", None)
    return hasattr(value, "__index__") if dtype is None else "int" in str(dtype)


def parameter_axes(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes that keep their own statistics, sorted and counted from the front; ValueError if they are not legal."""
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if not given or not all(map(is_int, given)):
        raise TypeError(f"axis must be an int or a tuple of ints, got {shown(axis)}")
    if not all(-ndim <= a < ndim for a in given):
        raise ValueError(f"axis must lie within the {ndim} axes of x, got {axis!r}; reshape x, or pass another axis")
    axes = tuple(sorted(operator.index(a) % ndim for a in given))
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis must not name an axis twice, got {axis!r}; leave one out")
    inner = axes[1:] if axes[0] == 0 and len(axes) > 1 and axes[1] > 1 else axes
    if inner != tuple(range(inner[0], inner[0] + len(inner))):
        raise ValueError(f"axis must be one axis, adjacent axes, or axis 0 and one of those, got {axis!r}; transpose x")
    return axes


def memory_order(a: Array) -> tuple[int, ...] | None:
    """The axes of `a` from slowest to fastest where its elements fill one block of memory, else None.

    An array of a library without strides counts as C order.
    """
    identity = tuple(range(a.ndim))
    strides = getattr(a, "strides", None)
    if strides is None or a.flags.c_contiguous:
        return identity
    order = tuple(sorted(identity, key=lambda i: (a.shape[i] != 1, -strides[i])))
    expected = a.itemsize
    for i in reversed(order):
        if a.shape[i] != 1:
            if strides[i] != expected:
                return None
            expected *= a.shape[i]
    return order


def make_layout(shape: tuple[int, ...], axis: int | tuple[int, ...], memory: tuple[int, ...] | None) -> Layout:
    """The layout for an array of this shape and memory order.

    Memory order is kept wherever it reads as a 4-D view (C order, channels-last and others); else C order is used, at
    the price of a copy.
    """
    if type(axis) is int:  # True and 1.0 are equal to 1, and must not find what was made for it
        return _layout_of_axis(shape, axis, memory)
    return _make_layout(shape, parameter_axes(axis, len(shape)), memory)


@lru_cache(maxsize=4096)
def _layout_of_axis(shape: tuple[int, ...], axis: int, memory: tuple[int, ...] | None) -> Layout:
    return _make_layout(shape, parameter_axes(axis, len(shape)), memory)


@lru_cache(maxsize=4096)
def _make_layout(shape: tuple[int, ...], axes: tuple[int, ...], memory: tuple[int, ...] | None) -> Layout:
    identity = tuple(range(len(shape)))
    grouped = len(axes) > 1 and axes[0] == 0 and axes[1] > 1
    memory = identity if memory is None else memory
    order = memory if _reads_as_view(memory, axes, grouped) else identity
    kept = set(axes[1:] if grouped else axes)
    first, last = (f(i for i, a in enumerate(order) if a in kept) for f in (min, max))
    dims = tuple(shape[a] for a in order)
    view = (
        shape[0] if grouped else 1,
        math.prod(dims[int(grouped) : first]),
        math.prod(dims[first : last + 1]),
        math.prod(dims[last + 1 :]),
    )
    batch = next((a for a in identity if a not in axes), 0)
    parameters, flat = tuple(shape[a] for a in axes), (view[0], view[2])
    plain = order == memory == identity
    elements = view[1] * view[3]
    return Layout(order, view, dims, _inverse(order), memory, axes, batch, parameters, flat, elements, plain)


def _reads_as_view(order: tuple[int, ...], axes: tuple[int, ...], grouped: bool) -> bool:
    """Whether these axes, in this order, are the group, then reduced ones, then the channels, then reduced ones."""
    if grouped and order[0] != 0:
        return False
    kept = axes[1:] if grouped else axes
    start = order.index(kept[0])
    return order[start : start + len(kept)] == kept


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(i) for i in range(len(order)))
