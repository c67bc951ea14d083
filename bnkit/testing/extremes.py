"""Checks of the batch-norm ops at the ends of the range of their numbers."""

from typing import Any

import numpy as np

from bnkit.backend import Array, Backend
from bnkit.testing.cases import Host, dtypes

# The least number above 0 that is stored.
LEAST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}


def the_relu_lets_through_where_y_is_stored_above_zero(backend: Backend) -> None:
    """A value that the dtype rounds to 0 lets no gradient through, with a residual and without, in both modes."""
    for dtype in dtypes(backend):
        parameter = np.float64 if dtype == np.float64 else np.float32
        for inner in (1, 5, 40):
            rounded = _around_half_of(LEAST[dtype.name], parameter)
            shape = (1, 3, rounded.size, inner)
            zeros = np.zeros(shape, dtype)
            for train in (True, False):  # y is beta, since x is its mean
                y = _check_gate(backend, zeros, None, rounded[None, :], train)
                want = np.maximum(rounded.astype(dtype), 0)[None, None, :, None]
                assert np.array_equal(y, np.broadcast_to(want.astype(y.dtype), shape)), f"y of {dtype} {shape}"
            half = int(np.log2(LEAST[dtype.name])) // 2
            x = (np.random.default_rng(inner).uniform(-2, 2, shape) * 2.0**half).astype(dtype)
            gamma = np.full((1, rounded.size), LEAST[dtype.name] / 2 * 2.0**-half, parameter)
            _check_gate(backend, x, gamma, None, False)


def _around_half_of(least: float, dtype: Any) -> Host:
    """0, and numbers of both signs beside half of `least`, `least` and their sum, as far as the dtype holds them."""
    found = [0.0]
    for center in np.array([0.5, 1, 1.5], dtype) * dtype(least):
        below = above = center
        found.append(center)
        for _ in range(3):
            below, above = np.nextafter(below, dtype(-1)), np.nextafter(above, dtype(1))
            found += [below, above]
    numbers = np.array(found, dtype)
    return np.concatenate([numbers, -numbers])


def _check_gate(backend: Backend, x: Host, gamma: Host | None, beta: Host | None, train: bool) -> Host:
    """y, after the gate of each backward was compared with it; in inference x_hat is x."""

    def to(a: Host | None) -> Array | None:
        return None if a is None else backend.asarray(a)

    parameters, small = (to(gamma), to(beta)), (x.shape[0], x.shape[2])
    there, ones, parameter = to(x), to(np.ones_like(x)), np.float64 if x.dtype == np.float64 else np.float32
    for residual in (None, to(np.zeros_like(x))):
        options: dict[str, Any] = {"residual": residual, "activation": "relu"}
        if train:
            y, moments, rstd, active = backend.batch_norm_train(
                there, *parameters, None, None, decay=0.9, eps=1.0, correction=1, **options
            )
            mean, count = moments.mean, moments.count
        else:
            running = (to(np.zeros(small, parameter)), to(np.ones(small, parameter)))
            y, active = backend.batch_norm_inference(there, *parameters, *running, eps=0.0, **options)
            mean, rstd, count = to(np.zeros(small)), to(np.ones(small)), None
        gate: dict[str, Any] = {"activation": "relu", "active": active}
        arguments = (ones, there, *parameters, mean, rstd)
        grads = backend.batch_norm_backward(*arguments, train=train, count=count, residual=True, **gate)
        stored = backend.to_numpy(y).astype(np.float64)
        passed = backend.to_numpy(grads.dresidual).astype(np.float64)
        label = f"{x.dtype} {x.shape} {'with' if residual is not None else 'without'} a residual, train={train}"
        assert np.array_equal(passed, stored > 0), f"the gate is not where y is above 0, {label}"
        total = backend.to_numpy(backend.batch_norm_gradient_sums(*arguments, **gate)[0])
        assert np.array_equal(total, (stored > 0).sum(axis=(1, 3))), f"the sum of dy passes another gate, {label}"
    return stored
