"""The optimizers' rules in plain array-API code: how one array of parameters moves by its gradient."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any


class Settings(NamedTuple):
    """What a rule is told beside the arrays; `decays` weigh the old values of its memories, in their order."""

    lr: Any  # a float, or an array that broadcasts with the parameters
    decays: Sequence[float]
    eps: float
    step: int


def optimizer_step(
    xp: Any,
    rule: str,
    p: Array,
    g: Array,
    memory: Sequence[Array],
    lr: Any,
    *,
    decays: Sequence[float] = (),
    eps: float = 0.0,
    weight_decay: float = 0.0,
    step: int = 1,
) -> None:
    """Move `p` by its gradient `g`, and what `memory` holds of it, all in place.

    p, g and the arrays of memory have one shape and dtype, float32 or float64. lr: a float, or an array of that dtype
    with one entry for each of p's leading axis. step: the number of this update, from 1, for the corrections of "adam".
    weight_decay shrinks p by lr * weight_decay before the rule, and not through the gradient.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    with np.errstate(all="ignore"):  # NaN and infinity are no error here
        if not isinstance(lr, float):
            lr = xp.reshape(lr, (-1, *[1] * (p.ndim - 1)))
        if weight_decay:
            p *= 1 - lr * weight_decay
        RULES[rule](xp, p, g, memory, Settings(lr, decays, eps, step))


def _sgd(xp: Any, p: Array, g: Array, memory: Sequence[Array], settings: Settings) -> None:
    p -= settings.lr * g


def _momentum(xp: Any, p: Array, g: Array, memory: Sequence[Array], settings: Settings) -> None:
    (v,), (decay,) = memory, settings.decays
    v *= decay
    v += g
    p -= settings.lr * v


def _nesterov(xp: Any, p: Array, g: Array, memory: Sequence[Array], settings: Settings) -> None:
    (v,), (decay,) = memory, settings.decays
    v *= decay
    v += g
    p -= settings.lr * (g + decay * v)


def _adagrad(xp: Any, p: Array, g: Array, memory: Sequence[Array], settings: Settings) -> None:
    (h,) = memory
    h += g**2
    p -= settings.lr * g / (xp.sqrt(h) + settings.eps)


def _rmsprop(xp: Any, p: Array, g: Array, memory: Sequence[Array], settings: Settings) -> None:
    (h,), (decay,) = memory, settings.decays
    h *= decay
    h += (1 - decay) * g**2
    p -= settings.lr * g / (xp.sqrt(h) + settings.eps)


def _adam(xp: Any, p: Array, g: Array, memory: Sequence[Array], settings: Settings) -> None:
    (m, v), (beta1, beta2) = memory, settings.decays
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g**2
    root = xp.sqrt(v / (1 - beta2**settings.step))
    p -= settings.lr * (m / (1 - beta1**settings.step)) / (root + settings.eps)


# By the names that kernels know them by; bnkit/training/optimizers.py has the formulas and their sources.
RULES: dict[str, Callable[[Any, Array, Array, Sequence[Array], Settings], None]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
}
