"""Training in two ops: the moments first, then y by them.

This order allows moments of all ranks, parameters that depend on the moments, and a y that is written over x.
"""

from bnkit import reference
from bnkit.backend import Array
from bnkit.norm import renorm, synchronous
from bnkit.norm.cache import BatchNormCache, Statistics
from bnkit.norm.call import Call
from bnkit.reference import InferenceArguments, MomentsArguments


def train(call: Call) -> tuple[Array, BatchNormCache]:
    """In place, or synchronous over ranks."""
    return _normalize(call, _moments(call), call.args.gamma, call.args.beta, None)


@reference.quiet
def train_renormalized(call: Call) -> tuple[Array, BatchNormCache]:
    """With the parameters of batch renormalization."""
    xp, args, limits, moments = call.backend.xp, call.args, call.renorm, _moments(call)
    assert limits is not None
    assert args.running_mean is not None
    assert args.running_var is not None
    running = (args.running_mean, args.running_var)
    correction = renorm.correction(xp, moments, running, args.eps, limits)
    gamma, beta = renorm.parameters(xp, correction, args.gamma, args.beta, args.x)
    return _normalize(call, moments, gamma, beta, correction)


def _moments(call: Call) -> reference.Moments:
    moments = call.backend.batch_norm_moments(MomentsArguments(call.args.x, call.args.mask))
    return moments if call.reduce is None else synchronous.merged(call.backend, call.reduce, moments)


@reference.quiet
def _normalize(
    call: Call,
    moments: reference.Moments,
    gamma: Array | None,
    beta: Array | None,
    correction: renorm.Correction | None,
) -> tuple[Array, BatchNormCache]:
    backend, xp, args, x = call.backend, call.backend.xp, call.args, call.args.x
    var = reference.variance(xp, moments, 0)
    rstd = reference.reciprocal_std(xp, var, args.eps)
    if args.mask is not None:  # in a channel that the mask hides, y is beta
        known = moments.count > 0
        rstd = xp.where(known, rstd, xp.zeros_like(rstd))
        x = xp.where(known[:, None, :, None], x, xp.zeros_like(x))
    ending = (args.eps, args.residual, args.activation, args.out)
    y, active = backend.batch_norm_inference(InferenceArguments(x, gamma, beta, moments.mean, var, *ending))
    if args.running_mean is not None and args.running_var is not None:
        running = (args.running_mean, args.running_var)
        reference.move_running(xp, *running, moments, decay=args.decay, correction=args.correction)
    return y, call.cache((Statistics(moments.mean, rstd, moments.count, active),), correction)
