"""The experiment in JAX: one compiled program with batch norm and one without; scan over updates, vmap over scales."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnkit.lab.benchmark.peers.weight_scale import Problem, Run


def prepare(work: Problem) -> dict[str, Run]:
    """The call of the experiment. Both programs are compiled here, outside the measured time."""
    scales = jnp.asarray(work.settings.scales, jnp.float32)
    normals = [jnp.asarray(n, jnp.float32) for n in work.normals]
    arguments = (scales, normals, jnp.asarray(work.x), jnp.asarray(work.t), jnp.asarray(work.batches))
    programs = []
    for normalized in (False, True):
        train = functools.partial(_train, work, normalized)
        mapped = jax.jit(jax.vmap(train, in_axes=(0, None, None, None, None)))
        programs.append(mapped.lower(*arguments).compile())
    return {"jax scan + vmap": lambda: np.stack([np.asarray(program(*arguments)) for program in programs])}


def _train(work: Problem, normalized: bool, scale: Any, normals: Any, x: Any, t: Any, batches: Any) -> Any:
    """Train one network, and return its last accuracy."""
    lr = work.settings.lr
    params = [
        {"W": scale * n, "b": jnp.zeros(n.shape[1]), "gamma": jnp.ones(n.shape[1]), "beta": jnp.zeros(n.shape[1])}
        for n in normals
    ]
    running = [(jnp.zeros(n.shape[1]), jnp.zeros(n.shape[1])) for n in normals[:-1]]
    forward: Any = functools.partial(_forward, work, normalized)

    def loss(params: Any, running: Any, x: Any, t: Any) -> Any:
        logits, moved = forward(params, running, x, True)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), t[:, None], 1)), moved

    def update(carry: Any, chosen: Any) -> Any:
        params, running = carry
        gradients, moved = jax.grad(loss, has_aux=True)(params, running, x[chosen], t[chosen])
        return (jax.tree.map(lambda p, g: p - lr * g, params, gradients), moved), None

    def epoch(carry: Any, batches: Any) -> Any:
        carry, _ = jax.lax.scan(update, carry, batches)
        logits, _ = forward(*carry, x, False)
        return carry, jnp.mean(jnp.argmax(logits, axis=1) == t)

    carry, accuracy = epoch((params, running), batches[:1])
    rest = batches[1:].reshape(-1, work.every, batches.shape[1])
    if rest.shape[0] == 0:
        return accuracy
    return jax.lax.scan(epoch, carry, rest)[1][-1]


def _forward(work: Problem, normalized: bool, params: Any, running: Any, x: Any, train: bool) -> Any:
    """The logits and the updated running statistics."""
    decay = work.settings.decay
    moved: Any = []
    for i, p in enumerate(params):
        x = x @ p["W"] + p["b"]
        if i == len(params) - 1:
            return x, moved if train and normalized else running
        if normalized:
            mean, var = running[i]
            if train:
                mean = x.mean(0)
                var = ((x - mean) ** 2).mean(0)
                moved.append((decay * running[i][0] + (1 - decay) * mean, decay * running[i][1] + (1 - decay) * var))
            x = (x - mean) * jax.lax.rsqrt(var + work.settings.eps) * p["gamma"] + p["beta"]
        x = jax.nn.relu(x)
    raise AssertionError("a network has a last layer")
