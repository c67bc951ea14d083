"""Optimizers: `update(params, grads)` writes into the arrays of `params`, which keep their identity.

params and grads are dictionaries of arrays with the same names and shapes. lr is a number, or with replicas one for
each entry of the leading axis. `state` holds what an optimizer remembers of each parameter (arrays named "weight/m"),
and `steps` the number of its updates. An optimizer with such memory belongs to the arrays of its first update and
keeps them alive; `reset()` frees it for another model. Defaults are PyTorch's.
"""

from collections.abc import Callable

from bnkit.training.optimizer import Optimizer, Rate


class SGD(Optimizer):
    """p -= lr * g.

    >>> params = {"weight": np.array([1.0, -2.0])}
    >>> bnkit.optim.SGD(lr=0.5).update(params, {"weight": np.array([1.0, 1.0])})
    >>> params["weight"]
    array([ 0.5, -2.5])
    """

    rule = "sgd"

    def __init__(self, lr: Rate = 0.01) -> None:
        super().__init__(lr)


class Momentum(Optimizer):
    """v = momentum * v + g; p -= lr * v. Source: Polyak 1964, as PyTorch's SGD(momentum)."""

    rule = "momentum"
    slots = ("v",)
    decays = ("momentum",)
    momentum: float

    def __init__(self, lr: Rate = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr, momentum=momentum)


class Nesterov(Momentum):
    """v = momentum * v + g; p -= lr * (g + momentum * v). Source: Sutskever et al. 2013, as PyTorch's SGD(nesterov)."""

    rule = "nesterov"


class AdaGrad(Optimizer):
    """h += g²; p -= lr * g / (√h + eps). Source: Duchi, Hazan & Singer 2011."""

    rule = "adagrad"
    slots = ("h",)

    def __init__(self, lr: Rate = 0.01, eps: float = 1e-10) -> None:
        super().__init__(lr, eps=eps)


class RMSProp(Optimizer):
    """h = alpha * h + (1 - alpha) * g²; p -= lr * g / (√h + eps). Source: Tieleman & Hinton 2012, lecture 6.5."""

    rule = "rmsprop"
    slots = ("h",)
    decays = ("alpha",)
    alpha: float

    def __init__(self, lr: Rate = 0.01, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(lr, alpha=alpha, eps=eps)


class Adam(Optimizer):
    """Adaptive moments with bias correction. Source: Kingma & Ba 2015, algorithm 1.

    >>> params = {"weight": np.array([1.0, -2.0])}
    >>> bnkit.optim.Adam(lr=0.1).update(params, {"weight": np.array([3.0, -0.5])})
    >>> params["weight"].round(6)  # the first step is lr in the direction of each gradient's sign
    array([ 0.9, -1.9])
    """

    rule = "adam"
    slots = ("m", "v")
    decays = ("beta1", "beta2")
    beta1: float
    beta2: float

    def __init__(self, lr: Rate = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__(lr, beta1=beta1, beta2=beta2, eps=eps)


class AdamW(Adam):
    """Adam with weight decay outside the gradient. Source: Loshchilov & Hutter 2019, algorithm 2.

    It decays every parameter of `params`, as PyTorch's does.
    """

    def __init__(
        self,
        lr: Rate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        Optimizer.__init__(self, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)


BY_NAME: dict[str, Callable[..., Optimizer]] = {
    cls.__name__.lower(): cls for cls in (SGD, Momentum, Nesterov, AdaGrad, RMSProp, Adam, AdamW)
}

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSProp"]


def __dir__() -> list[str]:
    return list(__all__)
