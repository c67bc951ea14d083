"""Moments of a batch of which every rank holds a part: synchronous batch norm."""

from collections.abc import Callable

from bnkit import reference
from bnkit.backend import Array, Backend, dtype_name
from bnkit.backend.layout import contiguous

Reduce = Callable[[Array], Array]


@reference.quiet
def moments(backend: Backend, x: Array, mask: Array | None, reduce: Reduce) -> reference.Moments:
    """By two sums over the ranks: of counts and means, then of squared distances from the common mean."""
    xp = backend.xp
    count, mean, m2 = backend.batch_norm_moments(x, mask=mask)
    summed = reduced(backend, reduce, xp.stack([count, count * mean]))
    total = summed[0, ...]
    n = xp.where(total > 0, total, xp.ones_like(total))
    common = summed[1, ...] / n
    away = mean - common
    summed = reduced(backend, reduce, xp.stack([count * away, m2 + count * away**2]))
    common = common + summed[0, ...] / n  # the second look makes it exact for a constant channel
    return reference.Moments(total, common, summed[1, ...])


def reduced(backend: Backend, reduce: Reduce, part: Array) -> Array:
    """The sum in memory of its own, for `reduce` may write its next one where it wrote this."""
    xp, shape = backend.xp, tuple(part.shape)
    summed = reduce(part)
    if tuple(getattr(summed, "shape", ())) != shape:
        raise ValueError(
            f"reduce must return an array of shape {shape} as it was given, got "
            f"{tuple(summed.shape) if hasattr(summed, 'shape') else type(summed).__name__}"
        )
    kind = type(summed)
    found = dtype_name(summed) if backend.owns(kind) else f"{kind.__module__}.{kind.__qualname__}"
    if found not in ("float32", "float64"):
        raise TypeError(f"reduce must return a float64 array of {backend.key} as it was given, got {found}; convert it")
    return contiguous(xp, xp.astype(summed, xp.float64), shape)
