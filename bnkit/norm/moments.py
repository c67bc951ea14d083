"""Moments: count, mean and squared distances as a value that merges, so that parts of any size are taken in any order.

Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
"""

from typing import Any

from bnkit import reference
from bnkit.backend import Array, checks, owner
from bnkit.backend.layout import reshape
from bnkit.backend.messages import shown
from bnkit.norm import arguments


class Moments(reference.Moments):
    """How many elements, their mean, and the sum of their squared distances from it, for each channel.

    count, mean, m2: arrays of one backend and one shape. `Moments.of` makes them of data, `merge` of other moments. A
    plain tuple of arrays: it pickles, so parts may come from threads, processes and machines.
    """

    __slots__ = ()

    @classmethod
    def of(cls, x: Array, *, axis: int | tuple[int, ...] = 1, mask: Array | None = None) -> "Moments":
        """The moments of x over every axis but `axis`, where `mask` is True; float64, in the shape of parameters.

        x, axis and mask are those of `bnkit.batch_norm`. Of no rows, the count is 0. For x narrower than float64
        kernels add up to 32 numbers in float32 before they go on in float64: m2 is within 2e-6 of its size.
        """
        backend = checks.common_backend(x=x, mask=mask)
        checks.check_data("x", x)
        layout, xp = backend.layout(x, axis), backend.xp
        if mask is not None:
            mask = layout.view(xp, xp.broadcast_to(arguments.check_mask(mask, x, layout, backend), x.shape))
        moments = backend.batch_norm_moments(reference.MomentsArguments(layout.view(xp, x), mask))
        return cls(*(reshape(xp, a, layout.parameters) for a in moments))

    @reference.quiet
    def merge(self, *others: reference.Moments) -> "Moments":
        """The moments of all the parts together, in float64; a part with count 0 changes nothing.

        As a reduction, `functools.reduce(Moments.merge, parts)`; fewer roundings, `parts[0].merge(*parts[1:])`. The
        grouping changes roundings alone: with u = 2**-53, n elements in all and κ = sqrt(1 + mean² / var), the mean
        stays within 4 p u max|mean| of the exact one and m2 within 4 p u κ of its size, where p is the number of parts
        (Chan, Golub & LeVeque 1983, table 1: n u κ for parts of one element). NaN stays in its channel.

        Raises TypeError for what is not Moments and for mixed backends, ValueError for parts of different shapes.
        """
        parts = (self, *others)
        xp = _check_parts(parts).xp
        if not others:
            return self
        count, mean, m2 = (xp.stack([xp.astype(a, xp.float64) for a in arrays]) for arrays in zip(*parts, strict=True))
        known = count > 0
        mean, m2 = (xp.where(known, a, xp.zeros_like(a)) for a in (mean, m2))  # 0 / 0 of an empty part is no NaN here
        total = _sum(xp, count)
        share = count / xp.where(total > 0, total, xp.ones_like(total))
        common = _sum(xp, share * mean)
        # The second look makes it exact where all parts have one mean, and leaves of the rounding only the last.
        common = common + _sum(xp, share * _away(xp, mean, common, known))
        m2 = _sum(xp, m2 + count * _away(xp, mean, common, known) ** 2)
        return Moments(*(xp.reshape(a, tuple(self.mean.shape)) for a in (total, common, m2)))

    @reference.quiet
    def var(self, correction: int = 0) -> Array:
        """m2 / (count - correction), and NaN where the count is not above the correction."""
        checks.check_int("correction", correction, least=0)
        xp = _check_parts((self,)).xp
        count, m2 = (xp.astype(a, xp.float64) for a in (self.count, self.m2))
        known = count > correction
        n = xp.where(known, count - correction, xp.ones_like(count))
        return xp.where(known, m2 / n, xp.full_like(m2, float("nan")))


def _sum(xp: Any, a: Array) -> Array:
    """Over the parts, whose axis stays, since a sum of numbers alone is no array of every library."""
    return xp.sum(a, axis=0, keepdims=True)


def _away(xp: Any, mean: Array, common: Array, known: Array) -> Array:
    return xp.where(known, mean - common, xp.zeros_like(mean))


def _check_parts(parts: tuple[Any, ...]) -> Any:
    """Their backend; all arrays are of it, and of one shape."""
    names: list[str] = []
    arrays: list[Array] = []
    for i, part in enumerate(parts):
        if not isinstance(part, reference.Moments):
            raise TypeError(f"others must be Moments, got {shown(part)}; pass them one by one")
        names += [f"{name} of part {i}" for name in part._fields]
        arrays += part
    for name, array in zip(names, arrays, strict=True):
        owner(array, name)
    backend = checks.one_backend(tuple(names), tuple(arrays))
    shape = tuple(arrays[1].shape)
    for name, array in zip(names, arrays, strict=True):
        if tuple(array.shape) != shape:
            raise ValueError(f"{name} must have the shape of the first mean, {shape}, got {tuple(array.shape)}")
    return backend
