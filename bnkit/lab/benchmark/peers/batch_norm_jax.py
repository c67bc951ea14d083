"""Batch norm in JAX under jit: the forward, and the vjp's backward alone with the residuals of the forward.

Each is timed with the variance as the mean of squared distances and as E[x²] - m², which is flax's default and faster,
and each with the result in new memory and in the donated memory of an earlier result.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnkit.lab.benchmark.measure import OPS, Case, Op
from bnkit.lab.benchmark.peers.batch_norm import Calls

DECAY, EPS = 0.9, 1e-5

jax.config.update("jax_enable_x64", True)


def calls(case: Case, name: str, dtype: str) -> Calls:
    op = OPS[name]
    generator = np.random.default_rng(0)
    axes = (case.axis % len(case.shape),) if isinstance(case.axis, int) else case.axis
    shape = tuple(n if a in axes else 1 for a, n in enumerate(case.shape))
    parameter = jnp.float64 if dtype == "float64" else jnp.float32
    x, dy, residual = (jnp.asarray(generator.standard_normal(case.shape, np.float32), dtype) for _ in range(3))
    gamma, beta, mean = (jnp.asarray(generator.standard_normal(shape), parameter) for _ in range(3))
    var = jnp.ones_like(mean)
    reduced = tuple(a for a in range(len(case.shape)) if a not in axes)
    inputs = (x, gamma, beta, residual if op.residual else None)
    result: Calls = {}
    for variance, fast in {"two passes": False, "E[x²] - m²": True}.items():
        function = _forward(op, reduced, fast)
        if op.kind != "backward":
            result |= _timed(variance, lambda inputs, running, f=function: f(*inputs, *running), inputs, (mean, var))
            if op.kind == "inference":  # an inference computes no variance
                return {key.removeprefix(variance + ", "): call for key, call in result.items()}
        else:
            vjp = jax.jit(lambda *inputs, f=function: jax.vjp(lambda *i: f(*i, mean, var)[0], *inputs)[1])(*inputs)
            result |= _timed(variance, lambda vjp, dy: vjp(dy), vjp, dy)
    return result


def _timed(variance: str, function: Callable[..., Any], *arguments: Any) -> Calls:
    plain = jax.jit(function)
    # XLA writes the result into the memory of the donated, otherwise unused, argument of the same shape.
    donated = jax.jit(lambda _, *arguments: function(*arguments), donate_argnums=0, keep_unused=True)
    old = [jax.block_until_ready(plain(*arguments))]

    def into_old_memory() -> None:
        old[0] = jax.block_until_ready(donated(old[0], *arguments))

    return {
        f"{variance}, jit": lambda: jax.block_until_ready(plain(*arguments)),
        f"{variance}, jit, donated": into_old_memory,
    }


def _forward(op: Op, reduced: tuple[int, ...], fast: bool) -> Callable[..., Any]:
    def forward(x: Any, gamma: Any, beta: Any, residual: Any, running_mean: Any, running_var: Any) -> Any:
        wide = x.astype(gamma.dtype)
        if op.kind == "inference":
            mean, var = running_mean, running_var
        else:
            mean = wide.mean(reduced, keepdims=True)
            squares = (wide**2).mean(reduced, keepdims=True) - mean**2 if fast else None
            var = wide.var(reduced, keepdims=True) if squares is None else jnp.maximum(squares, 0)
            running_mean, running_var = (
                DECAY * old + (1 - DECAY) * new for old, new in ((running_mean, mean), (running_var, var))
            )
        y = (wide - mean) * (gamma * jax.lax.rsqrt(var + EPS)) + beta
        if residual is not None:
            y = y + residual
        if op.relu:
            y = jax.nn.relu(y)
        return y.astype(x.dtype), running_mean, running_var

    return forward
