"""Optimizers: `update(params, grads)` writes into the arrays of `params`, which keep their identity.

params and grads are dictionaries of arrays with the same names and shapes. lr is a number, or with replicas one for
each entry of the leading axis. `state` holds what an optimizer remembers of each parameter (arrays named "weight/m"),
and `steps` the number of its updates. An optimizer with such memory belongs to the arrays that it was first called
with, and keeps them alive; `reset()` frees it for another model. Defaults are PyTorch's.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bnkit.backend import Array, Backend, backend_of, checks, dtype_name
from bnkit.backend.messages import shown

Rate = float | Sequence[float]


class Optimizer:
    """Checks, per-replica learning rates and memory; a subclass names its rule, which backends work out."""

    rule: ClassVar[str]  # of `bnkit.reference.optimizer_step`
    slots: tuple[str, ...] = ()  # the names of what is remembered of each parameter, zero at the start
    decays: tuple[str, ...] = ()  # the settings that weigh what was remembered, in the order of the slots
    eps = 0.0
    weight_decay = 0.0

    def __init__(self, lr: Rate, **settings: float) -> None:
        self.lr = lr
        for name, value in settings.items():
            checks.check_real(name, value, least=0.0, below=np.inf if name in ("eps", "weight_decay") else 1.0)
            setattr(self, name, float(value))
        if "eps" in settings and self.eps == 0:
            raise ValueError(f"eps must be above 0, got {settings['eps']!r}; a zero gradient would be divided by 0")
        self.settings = {"lr": self.lr.tolist(), **settings}
        self.reset()

    def reset(self) -> None:
        """Forget the memory and the steps, and so be free for another model; the settings and `lr` stay.

        >>> data, optimizer = bnkit.data.load("synthetic"), bnkit.optim.Adam()
        >>> for seed in range(2):
        ...     optimizer.reset()
        ...     model = bnkit.MLP((64, 20, 10), seed=seed)
        ...     records = bnkit.fit(model, data, optimizer=optimizer, epochs=1, batch_size=100)
        """
        self.state: dict[str, Array] = {}
        self.steps = 0
        self._owners: dict[str, Array] = {}  # the parameters of the last update

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy belongs to the arrays that it meets first: those of the copied model.
        self.__dict__.update(state | {"_owners": {}})

    @property
    def lr(self) -> np.ndarray:
        """The learning rate, float64 of shape () or (replicas,); it may be set anew between updates."""
        return self._lr

    @lr.setter
    def lr(self, lr: Rate) -> None:
        given = np.asarray(lr)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"lr must be a number, or one a replica, got {lr!r}")
        given = given.astype(np.float64)
        if given.ndim > 1 or given.size == 0 or not np.all(np.isfinite(given)) or np.any(given < 0):
            raise ValueError(f"lr must be a finite number of at least 0, or one a replica, got {lr!r}")
        self._lr = given

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """One step, in place; ValueError where the names or shapes of params and grads differ, before any write."""
        for argument, arrays in (("params", params), ("grads", grads)):
            if not isinstance(arrays, Mapping):
                raise TypeError(
                    f"{argument} must be a dictionary of arrays by name, got {shown(arrays)}; as MLP.params is"
                )
        if params.keys() != grads.keys():
            raise ValueError(f"grads must have the names of params, {sorted(params)}, got {sorted(grads)}")
        self.check(params)
        for name, p in params.items():
            if not _fits(p, grads[name]):
                _check_gradient(name, p, grads[name])
        self.steps += 1
        self._remember(params)
        settings = {"eps": self.eps, "weight_decay": self.weight_decay, "step": self.steps}
        decays = tuple(getattr(self, name) for name in self.decays)
        for name, p in params.items():
            backend = backend_of(p)
            memory = tuple(self.state[f"{name}/{slot}"] for slot in self.slots)
            lr = self._rate(backend, p)
            backend.optimizer_step(self.rule, p, grads[name], memory, lr, decays=decays, **settings)

    def part(self, params: Mapping[str, Array], replicas: slice) -> "Optimizer":
        """The optimizer of some of the replicas of `params`, on the same memory; `steps` is its own."""
        self._remember(params)
        own = copy.copy(self)
        own.state = {name: memory[replicas, ...] for name, memory in self.state.items()}
        if self.lr.ndim:
            own._lr = self._lr[replicas]
        return own

    def check(self, params: Mapping[str, Array]) -> None:
        """TypeError or ValueError where `update` would refuse these parameters, whatever their gradients."""
        for name, p in params.items():
            if self._owners.get(name) is not p:
                self._check(f"params[{name!r}]", name, p)
            if self.lr.ndim and (p.ndim == 0 or p.shape[0] != self.lr.shape[0]):
                raise ValueError(
                    f"params[{name!r}] must lead with {self.lr.shape[0]} replicas, one a learning rate, got "
                    f"{tuple(p.shape)}"
                )
            backend = backend_of(p)
            if not backend.writeable(p):  # also of an array that was writeable before
                checks.check_writeable(f"params[{name!r}]", p, backend)

    def _check(self, argument: str, name: str, p: Array) -> None:
        """An array that this optimizer has not updated before."""
        backend = checks.one_backend((argument,), (p,))
        if dtype_name(p) not in ("float32", "float64"):
            raise TypeError(f"{argument} must be float32 or float64, got {dtype_name(p)}; convert it")
        for memory in (self.state.get(f"{name}/{slot}") for slot in self.slots):
            if memory is not None and tuple(memory.shape) != tuple(p.shape):
                raise ValueError(
                    f"{argument} must keep its shape {tuple(memory.shape)}, got {tuple(p.shape)}; make an optimizer "
                    f"for each model, or call reset()"
                )
        before = self._owners.get(name, p) if self.slots else p
        if before is not p and not (type(before) is type(p) and backend.overlap(before, p)):
            raise ValueError(
                f"{argument} must be the array of this {type(self).__name__}'s earlier updates, got another array; "
                f"make a new optimizer for each model, or call reset()"
            )
        if self.eps and dtype_name(p) == "float32" and np.float32(self.eps) == 0:
            raise ValueError(f"eps must be above 0 in float32, the dtype of {argument}, got {self.eps}; use 1e-8")
        checks.check_writeable(argument, p, backend)

    def _remember(self, params: Mapping[str, Array]) -> None:
        for name, p in params.items():
            for slot in self.slots:
                if f"{name}/{slot}" not in self.state:
                    self.state[f"{name}/{slot}"] = backend_of(p).xp.zeros_like(p)
            self._owners[name] = p

    def _rate(self, backend: Backend, p: Array) -> Any:
        return backend.asarray(self.lr, dtype=p.dtype) if self.lr.ndim else float(self.lr)


def _check_gradient(name: str, p: Array, g: Array) -> None:
    argument = f"grads[{name!r}]"
    checks.one_backend((f"params[{name!r}]", argument), (p, g))
    if dtype_name(g) != dtype_name(p):
        raise TypeError(
            f"{argument} must have the dtype of params[{name!r}], {dtype_name(p)}, got {dtype_name(g)}; convert it"
        )
    if tuple(g.shape) != tuple(p.shape):
        raise ValueError(f"{argument} must have shape {tuple(p.shape)}, got {tuple(g.shape)}")


def _fits(p: Array, g: Array) -> bool:
    """Whether one look tells that `g` can be a gradient of `p`; False says nothing."""
    return type(g) is type(p) is np.ndarray and g.dtype == p.dtype and g.shape == p.shape


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
    """Adam with weight decay apart from the gradient. Source: Loshchilov & Hutter 2019, algorithm 2.

    It decays every parameter that it is given, as PyTorch's does.
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
