"""The optimizers' rules in plain array-API code: how one array of parameters moves by its gradient."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bnkit.reference.array import Array


class StepArguments(NamedTuple):
    """One step of an optimizer over one array of parameters.

    p, g and the arrays of memory have one shape and dtype, float32 or float64. lr: a float, or an array of that dtype
    with one entry for each of p's leading axis. decays weigh the old values of the memories, in their order.
    weight_decay shrinks p by lr * weight_decay before the rule, and not through the gradient. step: the number of this
    update, from 1, for the corrections of "adam".
    """

    rule: str
    p: Array
    g: Array
    memory: Sequence[Array]
    lr: Any
    decays: Sequence[float] = ()
    eps: float = 0.0
    weight_decay: float = 0.0
    step: int = 1


def optimizer_step(xp: Any, args: StepArguments) -> None:
    """Move `p` by its gradient `g`, and the memories of p, all in place."""
    if args.rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {args.rule!r}")
    p, lr = args.p, args.lr
    with np.errstate(all="ignore"):  # NaN and infinity are no error here
        if not isinstance(lr, float):
            lr = xp.reshape(lr, (-1, *[1] * (p.ndim - 1)))
        if args.weight_decay:
            p *= 1 - lr * args.weight_decay
        RULES[args.rule](xp, p, args.g, args.memory, args._replace(lr=lr))


def _sgd(xp: Any, p: Array, g: Array, memory: Sequence[Array], args: StepArguments) -> None:
    p -= args.lr * g


def _momentum(xp: Any, p: Array, g: Array, memory: Sequence[Array], args: StepArguments) -> None:
    (v,), (decay,) = memory, args.decays
    v *= decay
    v += g
    p -= args.lr * v


def _nesterov(xp: Any, p: Array, g: Array, memory: Sequence[Array], args: StepArguments) -> None:
    (v,), (decay,) = memory, args.decays
    v *= decay
    v += g
    p -= args.lr * (g + decay * v)


def _adagrad(xp: Any, p: Array, g: Array, memory: Sequence[Array], args: StepArguments) -> None:
    (h,) = memory
    h += g**2
    p -= args.lr * g / (xp.sqrt(h) + args.eps)


def _rmsprop(xp: Any, p: Array, g: Array, memory: Sequence[Array], args: StepArguments) -> None:
    (h,), (decay,) = memory, args.decays
    h *= decay
    h += (1 - decay) * g**2
    p -= args.lr * g / (xp.sqrt(h) + args.eps)


def _adam(xp: Any, p: Array, g: Array, memory: Sequence[Array], args: StepArguments) -> None:
    (m, v), (beta1, beta2) = memory, args.decays
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g**2
    root = xp.sqrt(v / (1 - beta2**args.step))
    p -= args.lr * (m / (1 - beta1**args.step)) / (root + args.eps)


# By the names that kernels know them by; bnkit/training/optimizers.py has the formulas and their sources.
RULES: dict[str, Callable[[Any, Array, Array, Sequence[Array], StepArguments], None]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
}
