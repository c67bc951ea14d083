"""One call of an op on a case, in the ways that a row may time it."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bnkit import reference
from bnkit.backend import Array, Backend, dtype_name
from bnkit.lab.benchmark.measure import OPS, UPDATES, Case, Op
from bnkit.nn.batch_norm import BatchNorm
from bnkit.norm.batch_norm import batch_norm, batch_norm_backward
from bnkit.reference import BackwardArguments, InferenceArguments, StepArguments, TrainArguments

DTYPES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}  # with the bytes of an element
DECAY, EPS, CORRECTION = 0.9, 1e-5, 1
DRAWN = 2**24


class Arrays(NamedTuple):
    """The arrays of a case, of a normal distribution; x, dy and out in its shape, the rest in its parameters'.

    Above DRAWN elements the values repeat: the largest cases would take longer to draw than a GPU takes to time them.
    """

    x: Array
    dy: Array
    residual: Array
    out: Array
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array


def arrays(backend: Backend, case: Case, dtype: str) -> Arrays:
    generator = np.random.default_rng(0)
    stored = _bfloat16() if dtype == "bfloat16" else dtype
    parameter = "float64" if dtype == "float64" else "float32"
    axes = (case.axis,) if isinstance(case.axis, int) else case.axis
    shape = tuple(case.shape[a] for a in axes)

    def normal(shape: tuple[int, ...], dtype: Any) -> Array:
        values = generator.standard_normal(min(math.prod(shape), DRAWN), np.float32).astype(dtype)
        return backend.asarray(np.resize(values, shape))

    x, dy, residual = (normal(case.shape, stored) for _ in range(3))
    gamma, beta, mean = (normal(shape, parameter) for _ in range(3))
    var = backend.asarray(generator.uniform(0.5, 2, shape).astype(parameter))
    return Arrays(x, dy, residual, backend.xp.zeros_like(x), gamma, beta, mean, var)


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("bfloat16 arrays need ml_dtypes; run pip install ml_dtypes") from error
    return ml_dtypes.bfloat16


def function_call(a: Arrays, case: Case, name: str) -> Callable[[], object]:
    """Through `bnkit.batch_norm` or `batch_norm_backward`, with out=."""
    op = OPS[name]
    options: dict[str, Any] = {"axis": case.axis, "decay": DECAY, "eps": EPS, "correction": CORRECTION}
    options |= {"residual": a.residual if op.residual else None, "activation": "relu" if op.relu else None}
    running = (a.running_mean, a.running_var)
    if op.kind != "backward":
        train = op.kind == "train"
        return lambda: batch_norm(a.x, a.gamma, a.beta, *running, train=train, out=a.out, **options)
    _, cache = batch_norm(a.x, a.gamma, a.beta, *running, train=True, **options)
    return lambda: batch_norm_backward(a.dy, cache, out=a.out)


def layer_call(backend: Backend, a: Arrays, case: Case, name: str) -> Callable[[], object]:
    """Through `BatchNorm.forward`, with out=; there is none for a backward."""
    op = OPS[name]
    features = tuple(a.gamma.shape) if a.gamma.ndim > 1 else a.gamma.shape[0]
    layer = BatchNorm(
        features, axis=case.axis, activation="relu" if op.relu else None, backend=backend, dtype=dtype_name(a.gamma)
    )
    residual, train = a.residual if op.residual else None, op.kind == "train"
    return lambda: layer.forward(a.x, train=train, residual=residual, out=a.out)


def op_call(backend: Backend, a: Arrays, case: Case, name: str) -> Callable[[], object]:
    """Through the backend's own op, on the 4-D view, with out=."""
    return _on_view(lambda op: getattr(backend, op), backend, a, case, OPS[name])


def reference_call(backend: Backend, a: Arrays, case: Case, name: str) -> Callable[[], object]:
    """Through `bnkit.reference` over the backend's array module."""
    return _on_view(lambda op: functools.partial(getattr(reference, op), backend.xp), backend, a, case, OPS[name])


def update_call(backend: Backend, a: Arrays, name: str, *, by_reference: bool = False) -> Callable[[], object]:
    """A step over parameters like x, on arrays of its own, through the backend's op or through `bnkit.reference`."""
    update, xp = UPDATES[name], backend.xp
    p, memory = a.x + 0, tuple(xp.zeros_like(a.x) for _ in update.decays)
    args = StepArguments(update.rule, p, a.dy, memory, 1e-6, decays=update.decays, eps=1e-8, step=10)
    op = functools.partial(reference.optimizer_step, xp) if by_reference else backend.optimizer_step
    return lambda: op(args)


def _on_view(
    find: Callable[[str], Callable[..., Any]], backend: Backend, a: Arrays, case: Case, op: Op
) -> Callable[[], object]:
    layout = backend.layout(a.x, case.axis)
    x, dy, residual, out = (layout.view(backend.xp, array) for array in (a.x, a.dy, a.residual, a.out))
    parameters = (a.gamma, a.beta, a.running_mean, a.running_var)
    gamma, beta, mean, var = (backend.xp.reshape(p, layout.flat) for p in parameters)
    added, activation = residual if op.residual else None, "relu" if op.relu else None
    if op.kind == "inference":
        inference = InferenceArguments(x, gamma, beta, mean, var, EPS, added, activation, out)
        return lambda: find("batch_norm_inference")(inference)
    train = TrainArguments(x, gamma, beta, mean, var, DECAY, EPS, CORRECTION, None, added, activation, out)
    if op.kind == "train":
        return lambda: find("batch_norm_train")(train)
    _, moments, rstd, active = find("batch_norm_train")(train._replace(out=None))
    statistics = (moments.mean, rstd, True, moments.count)
    backward = BackwardArguments(dy, x, gamma, beta, *statistics, None, None, activation, active, op.residual, out)
    return lambda: find("batch_norm_backward")(backward)
