"""Segments of a batch: runs of rows of the 4-D view that have statistics of their own and share the parameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bnkit.backend import Array, Layout
from bnkit.backend.layout import contiguous, make_layout


class Segment(NamedTuple):
    """Rows of the 4-D view that are cut into `parts` equal runs."""

    start: int
    stop: int
    parts: int


def with_batch_first(layout: Layout, shape: tuple[int, ...], axis: int | tuple[int, ...]) -> Layout:
    """A layout in which a run of the batch axis is a run of rows: this one, or the one in C order."""
    outermost = 1 if len(layout.axes) > 1 and layout.axes[0] == 0 < layout.axes[1] - 1 else 0
    for candidate in (layout, make_layout(shape, axis, None)):
        if candidate.order[outermost] == candidate.batch not in candidate.axes:
            return candidate
    raise ValueError(f"ghost needs the batch axis before the channels, got axis={axis!r} of {len(shape)}; transpose x")


def segments_of(layout: Layout, entries: int, ghost: int | None) -> tuple[Segment, ...]:
    """The whole runs of `ghost` entries of the batch axis, and the remainder; () where the batch is one run."""
    rows = layout.shape[1]
    if ghost is None or entries <= ghost:
        return ()
    cut = rows // entries * (entries // ghost * ghost)
    whole = Segment(0, cut, entries // ghost)
    return (whole,) if cut == rows else (whole, Segment(cut, rows, 1))


def split(xp: Any, view: Array | None, segment: Segment) -> Any:
    """The segment's rows of a 4-D view, as `(groups * parts, rows of a part, channels, inner)`; None of None."""
    if view is None or (segment.parts == 1 and segment.stop - segment.start == view.shape[1]):
        return view
    groups, _, channels, inner = view.shape
    rows = (segment.stop - segment.start) // segment.parts
    shape = (groups * segment.parts, rows, channels, inner)
    return contiguous(xp, view[:, segment.start : segment.stop, ...], shape)


def join(xp: Any, runs: Sequence[Array], shape: tuple[int, int, int, int]) -> Array:
    """The inverse of `split` over all segments."""
    if len(runs) == 1:
        return xp.reshape(runs[0], shape)
    groups, _, channels, inner = shape
    return xp.concat([xp.reshape(run, (groups, -1, channels, inner)) for run in runs], axis=1)


def repeat(xp: Any, parameter: Array | None, segment: Segment) -> Array | None:
    """`(groups, channels)` once for every part of each group."""
    return parameter if parameter is None or segment.parts == 1 else xp.repeat(parameter, segment.parts, axis=0)


def total(xp: Any, parts: Sequence[Array], groups: int) -> Array:
    """The sum over all parts of arrays `(groups * parts, channels)`: the gradient of a shared parameter."""
    if len(parts) == 1 and parts[0].shape[0] == groups:
        return parts[0]
    wide = by_group(xp, [xp.astype(p, xp.float64) for p in parts], groups)
    return xp.astype(xp.sum(wide, axis=1), parts[0].dtype)


def by_group(xp: Any, parts: Sequence[Array], groups: int) -> Array:
    """Arrays `(groups * parts, channels)` as one of `(groups, parts, channels)`."""
    return xp.concat([xp.reshape(p, (groups, -1, p.shape[1])) for p in parts], axis=1)
