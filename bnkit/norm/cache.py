"""What the backward of batch norm needs to know of the forward."""

from typing import NamedTuple

from bnkit import reference
from bnkit.backend import Array, Backend, Layout, dtype_name
from bnkit.norm.renorm import Correction
from bnkit.norm.segments import Segment
from bnkit.norm.synchronous import Reduce


class Statistics(NamedTuple):
    """The statistics that normalized one segment, each `(groups * parts, channels)`, and the bits of its ReLU."""

    mean: Array
    rstd: Array
    number: Array | None  # of the elements behind them; None where they are constants
    active: Array | None


class Constants(NamedTuple):
    """The running statistics of an inference. Its backward, which is rare, makes `Statistics` of them."""

    mean: Array
    var: Array
    eps: float
    active: Array | None


class BatchNormCache(NamedTuple):
    """What `batch_norm_backward` needs; opaque. It refers to x, which must keep its values until then."""

    backend: Backend
    layout: Layout
    x: Array  # y, where the forward is in place
    x_view: Array | None  # None where the forward wrote y over x and cannot recover x
    gamma: Array | None
    beta: Array | None
    mask: Array | None  # with the dimensions of x
    activation: str | None
    has_residual: bool
    statistics: tuple[Statistics, ...] | Constants
    segments: tuple[Segment, ...] = ()  # none where the batch is one segment
    reduce: Reduce | None = None
    renorm: Correction | None = None
    in_place: bool = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {dtype_name(self.x)} {tuple(self.x.shape)} on {self.backend.key}>"

    def mask_view(self) -> Array | None:
        """The mask as `(groups, rows, channels, inner)`."""
        xp = self.backend.xp
        return None if self.mask is None else self.layout.view(xp, xp.broadcast_to(self.mask, self.x.shape))


def statistics_of(cache: BatchNormCache) -> tuple[Statistics, ...]:
    """The statistics of each segment."""
    if not isinstance(cache.statistics, Constants):
        return cache.statistics
    xp = cache.backend.xp
    mean, var, eps, active = cache.statistics
    return (Statistics(xp.astype(mean, xp.float64), reference.reciprocal_std(xp, var, eps), None, active),)


def any_elements(cache: BatchNormCache) -> bool:
    """Whether any rank of a synchronous training had an element; waits for a device."""
    number = None if isinstance(cache.statistics, Constants) else cache.statistics[0].number
    return number is not None and 0 not in number.shape and float(cache.backend.xp.max(number)) > 0
