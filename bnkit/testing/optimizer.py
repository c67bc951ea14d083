"""Checks of the optimizers' steps."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bnkit import reference
from bnkit.backend import Array, Backend
from bnkit.testing.cases import TOLERANCE, Host, compare, dtypes, widen

RULES: dict[str, tuple[int, tuple[float, ...]]] = {  # how many memories, and their decays
    "sgd": (0, ()),
    "momentum": (1, (0.9,)),
    "nesterov": (1, (0.8,)),
    "adagrad": (1, ()),
    "rmsprop": (1, (0.9,)),
    "adam": (2, (0.9, 0.99)),
}
STEPS = 3


class Case(NamedTuple):
    label: str
    rule: str
    p: Host
    gradients: list[Host]
    memories: int
    lr: float | Host
    settings: dict[str, Any]


def optimizer_steps_are_those_of_the_reference(backend: Backend) -> None:
    """Each rule, three steps on end, with one learning rate or one for each entry, and with weight decay."""
    for case in _cases(backend):
        got = _moved(case, backend, backend.asarray)
        want = _moved(case, None, widen)
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            # Values of up to 8, a dozen roundings a step.
            tolerance = 12 * STEPS * TOLERANCE[case.p.dtype.name]
            compare(f"{f'memory {i}' if i else 'p'} of {case.label}", backend, g, w, tolerance)
            assert str(backend.to_numpy(g).dtype) == case.p.dtype.name, f"{case.label} changed the dtype"


def optimizer_steps_leave_the_gradient_as_it_was(backend: Backend) -> None:
    """And so the learning rates."""
    for case in _cases(backend):
        g, lr = backend.asarray(case.gradients[0].copy()), _rate(case, backend.asarray)
        p, *memory = (backend.asarray(a) for a in (case.p.copy(), *_zeros(case)))
        backend.optimizer_step(reference.StepArguments(case.rule, p, g, tuple(memory), lr, step=1, **case.settings))
        compare(f"gradient of {case.label}", backend, g, widen(case.gradients[0]), 0.0)
        if not isinstance(lr, float):
            compare(f"lr of {case.label}", backend, lr, widen(np.asarray(case.lr)), 0.0)


def optimizer_steps_write_views_and_what_lies_around_them_stays(backend: Backend) -> None:
    """Of every second row of a larger array, which is how replicas may be picked out of others."""
    rng = np.random.default_rng(3)
    whole, g = rng.normal(size=(10, 7)).astype(np.float32), rng.normal(size=(5, 7)).astype(np.float32)
    on_backend, v = backend.asarray(whole.copy()), backend.asarray(np.ones((5, 7), np.float32))
    backend.optimizer_step(
        reference.StepArguments("momentum", on_backend[::2, ...], backend.asarray(g), (v,), 0.1, decays=(0.5,))
    )
    want = widen(whole)
    want[::2] -= 0.1 * (0.5 + widen(g))
    compare("every second row", backend, on_backend, want, TOLERANCE["float32"])


def _cases(backend: Backend) -> Iterator[Case]:
    for dtype in dtypes(backend):
        if dtype.name not in ("float32", "float64"):
            continue
        for rule, (memories, decays) in RULES.items():
            for shape in ((1,), (3, 5), (4, 7, 11), (2, 1031)):
                rng = np.random.default_rng(shape)
                p, *gradients = (rng.normal(size=shape).astype(dtype) for _ in range(1 + STEPS))
                for lr in (0.1, rng.uniform(0.01, 0.5, shape[0]).astype(dtype)):
                    for weight_decay in (0.0, 0.3):
                        settings = {"decays": decays, "eps": 1e-3, "weight_decay": weight_decay}
                        rates = "one lr" if isinstance(lr, float) else "an lr each"
                        label = f"{rule} {dtype.name} {shape}, {rates}, weight_decay={weight_decay}"
                        yield Case(label, rule, p, gradients, memories, lr, settings)


def _zeros(case: Case) -> list[Host]:
    return [np.zeros_like(case.p) for _ in range(case.memories)]


def _rate(case: Case, to: Any) -> Any:
    return case.lr if isinstance(case.lr, float) else to(case.lr.copy())


def _moved(case: Case, backend: Backend | None, to: Any) -> list[Array]:
    """p and the memories after the steps, by the backend or by the reference over NumPy."""
    p, *memory = (to(a) for a in (case.p.copy(), *_zeros(case)))
    for step, g in enumerate(case.gradients, 1):
        arguments = (case.rule, p, to(g.copy()), tuple(memory), _rate(case, to))
        if backend is None:
            reference.optimizer_step(np, reference.StepArguments(*arguments, step=step, **case.settings))
        else:
            backend.optimizer_step(reference.StepArguments(*arguments, step=step, **case.settings))
    return [p, *memory]
