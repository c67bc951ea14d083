"""The fast path: a plain call whose arrays are as nearly every call's, checked by one look in the backend.

It pays for the row 100x100 of `bnkit bench`, where the checks of `call.prepare` take several times as long as the
kernel. `new` makes a record of a tuple in a third of the time that a call of its class takes.
"""

from typing import Any

import numpy as np

from bnkit.backend import Array, dtype_name, known_backends
from bnkit.backend.layout import make_layout, reshape
from bnkit.norm.cache import BatchNormCache, Constants, Statistics, statistics_of
from bnkit.reference import BackwardArguments, BatchNormBackward, InferenceArguments, TrainArguments

new: Any = tuple.__new__
_FLOAT32 = np.dtype("float32")


def forward(
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
) -> tuple[Array, BatchNormCache] | None:
    """y and the cache of a plain call with checked options; None where `call.prepare` must see the arrays."""
    backend = known_backends.get(type(x))
    if backend is None or type(axis) is not int or not -x.ndim <= axis < x.ndim:
        return None
    if (running_mean is None) is not (running_var is None) or (running_mean is None and not train):
        return None
    layout = make_layout(x.shape, axis, None)
    if train and layout.elements <= correction:
        return None
    over_x = out is x and not train
    others, parameters = (residual, None if over_x else out), (gamma, beta, running_mean, running_var)
    # The cache keeps gamma and beta, and in inference the running arrays, which may all move before the backward.
    views = backend.plain_views(x, others, parameters, 2 if train else 4, layout)
    if views is None:
        return None
    x_view, residual_view, out_view, gamma, beta, mean, var = views
    statistics: tuple[Statistics, ...] | Constants
    if train:
        arguments = (x_view, gamma, beta, mean, var, decay, eps, correction, None, residual_view, activation, out_view)
        y, moments, rstd, active = backend.batch_norm_train(new(TrainArguments, arguments))
        count, mean, _ = moments
        statistics = (new(Statistics, (mean, rstd, count, active)),)
    else:
        out_view = x_view if over_x else out_view
        constants = (x_view, gamma, beta, mean, var, eps, residual_view, activation, out_view)
        y, active = backend.batch_norm_inference(new(InferenceArguments, constants))
        statistics = new(Constants, (mean, var, eps, active))
        x_view = None if over_x else x_view
    inputs = (backend, layout, x, x_view, gamma, beta, None, activation, residual is not None)
    fields = (*inputs, statistics, (), None, None, False)
    return (reshape(backend.xp, y, x.shape) if out is None else out), new(BatchNormCache, fields)


def backward(cache: BatchNormCache, dy: Array, out: Array | None) -> tuple[BatchNormBackward, Array | None] | None:
    """The gradients on the 4-D view and `out` on it; None where dy, `out` or the variant needs more than the op."""
    backend, layout, x, x_view, gamma, beta, mask, activation, has_residual, _, segments, reduce, renorm, in_place = (
        cache
    )
    if dy is None or x_view is None or mask is not None or segments or reduce or renorm or in_place:
        return None
    views = backend.plain_views(dy, (x, None if out is dy else out), (), 0, layout)
    if views is None:
        return None
    dy_view, _, out_view = views
    out_view = dy_view if out is dy else out_view
    mean, rstd, number, active = statistics_of(cache)[0]
    beginning = (dy_view, x_view, gamma, beta, mean, rstd, number is not None, number, None, None)
    args = new(BackwardArguments, (*beginning, activation, active, has_residual, out_view))
    return backend.batch_norm_backward(args), out_view


def fits(x: Array, axis: int | tuple[int, ...], features: int, dtype: str) -> bool:
    """Whether one look tells that a layer with so many features takes x; False says nothing."""
    return (
        type(x) is np.ndarray
        and type(axis) is int
        and -x.ndim <= axis < x.ndim
        and x.shape[axis] == features
        and (x.dtype is _FLOAT32 if dtype == "float32" else dtype_name(x) == dtype)
    )
