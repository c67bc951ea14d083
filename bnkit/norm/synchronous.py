"""Synchronous batch norm: statistics and gradient sums of a batch whose rows lie on several ranks."""

from collections.abc import Callable
from typing import Any

from bnkit import reference
from bnkit.backend import Array, Backend, dtype_name
from bnkit.backend.layout import contiguous

Reduce = Callable[[Array], Array]


@reference.quiet
def merged(backend: Backend, reduce: Reduce, part: reference.Moments) -> reference.Moments:
    """The moments over all ranks, by two sums: counts and means, then squared distances from the common mean."""
    xp = backend.xp
    count, mean, m2 = part
    summed = reduced(backend, reduce, xp.stack([count, count * mean]))
    total = summed[0, ...]
    n = xp.where(total > 0, total, xp.ones_like(total))
    common = summed[1, ...] / n
    distance = mean - common
    summed = reduced(backend, reduce, xp.stack([count * distance, m2 + count * distance**2]))
    common = common + summed[0, ...] / n  # the second sum makes it exact for a constant channel
    return reference.Moments(total, common, summed[1, ...])


def gradient_sums(backend: Backend, reduce: Reduce, part: tuple[Any, ...]) -> tuple[Array, Array]:
    """The gradient sums over all ranks; part: the fields of this rank's `GradientSumsArguments`."""
    sums = backend.batch_norm_gradient_sums(reference.GradientSumsArguments(*part))
    summed = reduced(backend, reduce, backend.xp.stack(sums))
    return summed[0, ...], summed[1, ...]


def reduced(backend: Backend, reduce: Reduce, part: Array) -> Array:
    """The sum over the ranks in new memory, because `reduce` may write its next result where it wrote this one."""
    xp, shape = backend.xp, tuple(part.shape)
    summed = reduce(part)
    if tuple(getattr(summed, "shape", ())) != shape:
        raise ValueError(
            f"reduce must return an array of shape {shape} as it was given, got "
            f"{tuple(summed.shape) if hasattr(summed, 'shape') else type(summed).__name__}"
        )
    kind = type(summed)
    dtype = dtype_name(summed) if backend.owns(kind) else f"{kind.__module__}.{kind.__qualname__}"
    if dtype not in ("float32", "float64"):
        raise TypeError(f"reduce must return a float64 array of {backend.key} as it was given, got {dtype}; convert it")
    return contiguous(xp, xp.astype(summed, xp.float64), shape)
