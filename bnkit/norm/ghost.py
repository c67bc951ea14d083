"""Ghost batches: runs of rows of the 4-D view that have statistics of their own and share the parameters.

A plain batch has no segments.
Source: Hoffer, Hubara & Soudry 2017, algorithm 1; the running arrays move once a batch, by the mean over the parts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bnkit import reference
from bnkit.backend import Array
from bnkit.backend.layout import Layout, contiguous, make_layout


class Segment(NamedTuple):
    """Rows of the 4-D view that are cut into `parts` equal runs."""

    start: int
    stop: int
    parts: int


def with_batch_first(layout: Layout, shape: tuple[int, ...], axis: int | tuple[int, ...]) -> Layout:
    """The layout, or if need be the one in C order, in which a run of the batch axis is a run of rows."""
    outermost = 1 if len(layout.axes) > 1 and layout.axes[0] == 0 < layout.axes[1] - 1 else 0
    for candidate in (layout, make_layout(shape, axis, None)):
        if candidate.order[outermost] == candidate.batch not in candidate.axes:
            return candidate
    raise ValueError(f"ghost needs the batch axis before the channels, got axis={axis!r} of {len(shape)}; transpose x")


def segments(layout: Layout, entries: int, ghost: int | None) -> tuple[Segment, ...]:
    """The whole runs of `ghost` entries of the batch axis, and what remains; none where that is the whole batch."""
    rows = layout.shape[1]
    if ghost is None or entries <= ghost:
        return ()
    cut = rows // entries * (entries // ghost * ghost)
    whole = Segment(0, cut, entries // ghost)
    return (whole,) if cut == rows else (whole, Segment(cut, rows, 1))


def split(xp: Any, view: Array | None, segment: Segment) -> Array | None:
    """The segment's rows of a 4-D view, as `(groups * parts, rows of a part, channels, inner)`."""
    if view is None or (segment.parts == 1 and segment.stop - segment.start == view.shape[1]):
        return view
    groups, _, channels, inner = view.shape
    rows = (segment.stop - segment.start) // segment.parts
    shape = (groups * segment.parts, rows, channels, inner)
    return contiguous(xp, view[:, segment.start : segment.stop, ...], shape)


def join(xp: Any, pieces: Sequence[Array], shape: tuple[int, int, int, int]) -> Array:
    """The inverse of `split` over all segments."""
    if len(pieces) == 1:
        return xp.reshape(pieces[0], shape)
    groups, _, channels, inner = shape
    return xp.concat([xp.reshape(p, (groups, -1, channels, inner)) for p in pieces], axis=1)


def repeat(xp: Any, parameter: Array | None, segment: Segment) -> Array | None:
    """`(groups, channels)` once for every part of each group."""
    return parameter if parameter is None or segment.parts == 1 else xp.repeat(parameter, segment.parts, axis=0)


def total(xp: Any, pieces: Sequence[Array], groups: int) -> Array:
    """The sum over all parts of arrays `(groups * parts, channels)`: the gradient of a shared parameter."""
    if len(pieces) == 1 and pieces[0].shape[0] == groups:
        return pieces[0]
    wide = _by_group(xp, [xp.astype(p, xp.float64) for p in pieces], groups)
    return xp.astype(xp.sum(wide, axis=1), pieces[0].dtype)


def move_running(
    xp: Any,
    running_mean: Array,
    running_var: Array,
    pieces: Sequence[reference.Moments],
    *,
    decay: float,
    correction: int,
) -> None:
    """Move the running arrays once, by the mean of those parts of which the mask left enough."""
    groups = running_mean.shape[0]
    count, mean = (_by_group(xp, [p[i] for p in pieces], groups) for i in (0, 1))
    var = _by_group(xp, [reference.variance(xp, p, correction) for p in pieces], groups)
    for running, new, least in ((running_mean, mean, 0), (running_var, var, correction)):
        known = count > least
        parts = xp.sum(xp.astype(known, xp.float64), axis=1)
        new = xp.sum(xp.where(known, new, xp.zeros_like(new)), axis=1) / xp.where(parts > 0, parts, xp.ones_like(parts))
        reference.move(xp, running, new, parts > 0, decay=decay)


def _by_group(xp: Any, pieces: Sequence[Array], groups: int) -> Array:
    """`(groups, parts, channels)`."""
    return xp.concat([xp.reshape(p, (groups, -1, p.shape[1])) for p in pieces], axis=1)
