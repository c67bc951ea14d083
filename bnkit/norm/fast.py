"""The fast path: a call whose arguments are as nearly every call's, seen by one look at each.

It pays for the row 100x100 of `bnkit bench`, where the checks of `prepare` would take longer than the kernel.
"""

import numpy as np

from bnkit.backend import Array, dtype_name, known_backends
from bnkit.backend.layout import make_layout
from bnkit.norm.cache import BatchNormCache
from bnkit.norm.call import Call
from bnkit.reference import TrainArguments


def prepare(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    train: bool,
    axis: int | tuple[int, ...],
    decay: float,
    eps: float,
    correction: int,
    residual: Array | None,
    activation: str | None,
    out: Array | None,
) -> Call | None:
    """The record of a plain training or inference with checked options; None where `call.prepare` must see the arrays.

    Records come from `_make`, which takes half the time of a call of the class.
    """
    backend = known_backends.get(type(x))
    if backend is None or type(axis) is not int or not -x.ndim <= axis < x.ndim:
        return None
    if (running_mean is None) is not (running_var is None) or (running_mean is None and not train):
        return None
    layout = make_layout(x.shape, axis, None)
    if train and layout.elements <= correction:
        return None
    over_x = out is x and not train
    # The cache keeps gamma and beta, and in inference the running arrays, which may all move before the backward.
    views = backend.plain_views(
        x,
        (residual, None if over_x else out),
        (gamma, beta, running_mean, running_var),
        2 if train else 4,
        layout,
    )
    if views is None:
        return None
    x_view, residual_view, out_view, gamma, beta, running_mean, running_var = views
    if over_x:
        out_view = x_view
    forward = (x_view, gamma, beta, running_mean, running_var, decay, eps, correction)
    args = TrainArguments._make((*forward, None, residual_view, activation, out_view))
    return Call._make((backend, layout, x, out, args, train, None, (), None, None, False, ()))


def backward_views(cache: BatchNormCache, dy: Array, out: Array | None) -> tuple[Array, Array | None] | None:
    """dy and `out` on the 4-D view; None where they need checks, or where x and they lie in memory as no view reads."""
    if dy is None or cache.segments or cache.x_view is None:
        return None
    views = cache.backend.plain_views(dy, (cache.x, None if out is dy else out), (), 0, cache.layout)
    return None if views is None else (views[0], views[0] if out is dy else views[2])


def fits(x: Array, axis: int | tuple[int, ...], features: int, dtype: str) -> bool:
    """Whether one look tells that a layer with so many features takes x; False says nothing."""
    return (
        type(x) is np.ndarray
        and type(axis) is int
        and -x.ndim <= axis < x.ndim
        and x.shape[axis] == features
        and dtype_name(x) == dtype
    )
