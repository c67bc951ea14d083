"""The tutorial's optimizers: `update(params, grads)` over dictionaries of arrays."""

import math
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

import numpy as np


class _Optimizer:
    """`update` adds `_change` to each parameter, in place for arrays. A plain number is replaced in `params`."""

    state: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: float) -> None:
        self.lr, self.iter = lr, 0
        for name in self.state:
            setattr(self, name, None)

    @np.errstate(over="ignore", invalid="ignore")
    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any]) -> None:
        for key, p in params.items():
            if key not in grads:
                raise ValueError(f"grads must have the keys of params, got none for {key!r}")
            if np.shape(grads[key]) != np.shape(p):
                raise ValueError(f"grads[{key!r}] must be {np.shape(p)}, as in params, got {np.shape(grads[key])}")
        for name in self.state:
            if getattr(self, name) is None:
                setattr(self, name, {key: np.zeros_like(p) for key, p in params.items()})
        self.iter += 1
        for key in params:
            params[key] += self._change(key, grads[key])

    def _change(self, key: str, g: Any) -> Any:
        raise NotImplementedError


class SGD(_Optimizer):
    """p -= lr g.

    >>> params = {"W1": np.ones(2)}
    >>> bnkit.tutorial.SGD(lr=0.5).update(params, {"W1": np.ones(2)})
    >>> params["W1"]
    array([0.5, 0.5])
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _change(self, key: str, g: Any) -> Any:
        return -self.lr * g


class Momentum(_Optimizer):
    """v = momentum v - lr g; p += v."""

    state = ("v",)
    v: Any

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = momentum

    def _change(self, key: str, g: Any) -> Any:
        self.v[key] = self.momentum * self.v[key] - self.lr * g
        return self.v[key]


class Nesterov(Momentum):
    """p += momentum² v - (1 + momentum) lr g; v = momentum v - lr g. Source: Bengio et al. 2012, arXiv:1212.0901."""

    def _change(self, key: str, g: Any) -> Any:
        change = self.momentum**2 * self.v[key] - (1 + self.momentum) * self.lr * g
        super()._change(key, g)
        return change


class AdaGrad(_Optimizer):
    """h += g²; p -= lr g / (√h + 1e-7)."""

    state = ("h",)
    h: Any

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _change(self, key: str, g: Any) -> Any:
        self.h[key] = self.h[key] + g * g
        return -self.lr * g / (np.sqrt(self.h[key]) + 1e-7)


class RMSprop(_Optimizer):
    """h = decay_rate h + (1 - decay_rate) g²; p -= lr g / (√h + 1e-7)."""

    state = ("h",)
    h: Any

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = decay_rate

    def _change(self, key: str, g: Any) -> Any:
        self.h[key] = self.decay_rate * self.h[key] + (1 - self.decay_rate) * g * g
        return -self.lr * g / (np.sqrt(self.h[key]) + 1e-7)


class Adam(_Optimizer):
    """m and v, the decaying means of g and g²; p -= lr √(1 - beta2ᵗ) / (1 - beta1ᵗ) · m / (√v + 1e-7)."""

    state = ("m", "v")
    m: Any
    v: Any

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1, self.beta2 = beta1, beta2

    def _change(self, key: str, g: Any) -> Any:
        self.m[key] = self.m[key] + (1 - self.beta1) * (g - self.m[key])
        self.v[key] = self.v[key] + (1 - self.beta2) * (g * g - self.v[key])
        lr = self.lr * math.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)
        return -lr * self.m[key] / (np.sqrt(self.v[key]) + 1e-7)
