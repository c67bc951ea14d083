"""Batch norm over a whole batch by one call of the op: training, inference and the backward of both."""

from bnkit import reference
from bnkit.backend import Array
from bnkit.norm.cache import BatchNormCache, Constants, Statistics, statistics_of
from bnkit.norm.call import Call
from bnkit.norm.gradients import gradients


def train(call: Call) -> tuple[Array, BatchNormCache]:
    """y, and the cache with the batch's statistics; the op moves the running arrays."""
    y, moments, rstd, active = call.backend.batch_norm_train(call.args)
    return y, call.cache((Statistics(moments.mean, rstd, moments.count, active),))


def train_with_wide_statistics(call: Call) -> tuple[Array, BatchNormCache]:
    """As `train`, for float64 running arrays of a narrower x, which no op moves."""
    args = call.args
    y, moments, rstd, active = call.backend.batch_norm_train(args._replace(running_mean=None, running_var=None))
    assert args.running_mean is not None
    assert args.running_var is not None
    running = (args.running_mean, args.running_var)
    reference.move_running(call.backend.xp, *running, moments, decay=args.decay, correction=args.correction)
    return y, call.cache((Statistics(moments.mean, rstd, moments.count, active),))


def infer(call: Call) -> tuple[Array, BatchNormCache]:
    """y by copies of the running arrays, which may move before the backward."""
    x, gamma, beta, mean, var, _, eps, _, _, residual, activation, out = call.args
    assert mean is not None
    assert var is not None
    y, active = call.backend.batch_norm_inference(
        reference.InferenceArguments(x, gamma, beta, mean, var, eps, residual, activation, out)
    )
    return y, call.cache(Constants(mean, var, eps, active))


def backward(cache: BatchNormCache, dy: Array, out: Array | None) -> reference.BatchNormBackward:
    """The gradients on the 4-D view; `out` takes dx."""
    assert cache.x_view is not None
    (statistics,) = statistics_of(cache)
    return gradients(cache, statistics, dy, cache.x_view, cache.gamma, cache.beta, cache.mask_view(), out)
