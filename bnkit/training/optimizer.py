"""The base class of the optimizers: checks, learning rates of replicas, and memory."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bnkit.backend import Array, Backend, backend_of, checks, dtype_name
from bnkit.backend.messages import shown
from bnkit.reference import StepArguments

Rate = float | Sequence[float]


class Optimizer:
    """Updates parameters in place by a rule; a subclass names the rule, which the backends compute."""

    rule: ClassVar[str]  # of `bnkit.reference.optimizer_step`
    slots: tuple[str, ...] = ()  # the names of the memory of each parameter, zero at the start
    decays: tuple[str, ...] = ()  # the settings that weigh the old memory, in the order of the slots
    eps = 0.0
    weight_decay = 0.0

    def __init__(self, lr: Rate, **settings: float) -> None:
        self.lr = lr
        for name, value in settings.items():
            checks.check_real(name, value, least=0.0, below=np.inf if name in ("eps", "weight_decay") else 1.0)
            setattr(self, name, float(value))
        if "eps" in settings and self.eps == 0:
            raise ValueError(
                f"eps must be above 0, got {settings['eps']!r}; a zero gradient would be divided by 0, so pass 1e-8"
            )
        self.settings = {"lr": self.lr.tolist(), **settings}
        self.reset()

    def reset(self) -> None:
        """Forget the memory and the steps, for another model; the settings and `lr` stay.

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
        # A copy belongs to the arrays of its first update: those of the copied model.
        self.__dict__.update(state | {"_owners": {}})

    @property
    def lr(self) -> np.ndarray:
        """The learning rate, float64 of shape () or (replicas,); it may be changed between updates."""
        return self._lr

    @lr.setter
    def lr(self, lr: Rate) -> None:
        rate = np.asarray(lr)
        if rate.dtype.kind not in "iuf":
            raise TypeError(f"lr must be a number, or one a replica, got {lr!r}")
        rate = rate.astype(np.float64)
        if rate.ndim > 1 or rate.size == 0 or not np.all(np.isfinite(rate)) or np.any(rate < 0):
            raise ValueError(f"lr must be a finite number of at least 0, or one a replica, got {lr!r}")
        self._lr = rate

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Update params in place by one step.

        Raises TypeError or ValueError, before any write, for other names, shapes, dtypes or backends in grads than in
        params, and for other arrays than those of the earlier updates.
        """
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
        settings = (tuple(getattr(self, name) for name in self.decays), self.eps, self.weight_decay, self.steps)
        for name, p in params.items():
            backend = backend_of(p)
            memory = tuple(self.state[f"{name}/{slot}"] for slot in self.slots)
            lr = self._rate(backend, p)
            backend.optimizer_step(StepArguments(self.rule, p, grads[name], memory, lr, *settings))

    def part(self, params: Mapping[str, Array], replicas: slice) -> "Optimizer":
        """The optimizer of some replicas of `params`, on the same memory; it counts its `steps` by itself."""
        self._remember(params)
        part = copy.copy(self)
        part.state = {name: memory[replicas, ...] for name, memory in self.state.items()}
        if self.lr.ndim:
            part._lr = self._lr[replicas]
        return part

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
            if not backend.writeable(p):  # also for an array that was writeable before
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

    def _rate(self, backend: Backend, p: Array) -> float | Array:
        return backend.asarray(self.lr, dtype=p.dtype) if self.lr.ndim else float(self.lr)


def _check_gradient(name: str, p: Array, g: Array) -> None:
    argument = f"grads[{name!r}]"
    checks.one_backend((f"params[{name!r}]", argument), (p, g))
    if dtype_name(g) != dtype_name(p):
        raise TypeError(
            f"{argument} must have the dtype of params[{name!r}], {dtype_name(p)}, got {dtype_name(g)}; convert it"
        )
    if tuple(g.shape) != tuple(p.shape):
        raise ValueError(f"{argument} must have shape {tuple(p.shape)}, got {tuple(g.shape)}; reshape it")


def _fits(p: Array, g: Array) -> bool:
    """Fast path: whether `g` is obviously a gradient of `p`. False means that it needs the checks."""
    return type(g) is type(p) is np.ndarray and g.dtype == p.dtype and g.shape == p.shape
