"""The optimizers against each paper's formula with its own symbols, for one parameter."""

from collections.abc import Iterator

import numpy as np
import pytest
from small_params import host_arrays, on

from bnkit import optim


def sgd(p, gradients, lr=0.01) -> Iterator[np.ndarray]:
    for g in gradients:
        p = p - lr * g
        yield p


def momentum(p, gradients, lr=0.01, mu=0.9) -> Iterator[np.ndarray]:
    """Polyak 1964: v is the sum of all gradients, each weighed by mu to the power of its age."""
    for t in range(1, len(gradients) + 1):
        v = sum(mu ** (t - s) * gradients[s - 1] for s in range(1, t + 1))
        p = p - lr * v
        yield p


def nesterov(p, gradients, lr=0.01, mu=0.9) -> Iterator[np.ndarray]:
    """Sutskever et al. 2013, equations 3 and 4, in terms of the point θ + mu v where the gradient is taken."""
    theta, v = p, np.zeros_like(p)
    for g in gradients:
        v = mu * v - lr * g
        theta = theta + v
        yield theta + mu * v


def adagrad(p, gradients, lr=0.01, eps=1e-10) -> Iterator[np.ndarray]:
    for t in range(1, len(gradients) + 1):
        p = p - lr / (np.sqrt(sum(g**2 for g in gradients[:t])) + eps) * gradients[t - 1]
        yield p


def rmsprop(p, gradients, lr=0.01, alpha=0.99, eps=1e-8) -> Iterator[np.ndarray]:
    for t in range(1, len(gradients) + 1):
        mean_square = sum((1 - alpha) * alpha ** (t - s) * gradients[s - 1] ** 2 for s in range(1, t + 1))
        p = p - lr * gradients[t - 1] / (np.sqrt(mean_square) + eps)
        yield p


def adam(p, gradients, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0) -> Iterator[np.ndarray]:
    """Kingma & Ba 2015, algorithm 1; with weight_decay Loshchilov & Hutter 2019, algorithm 2, line 12."""
    for t in range(1, len(gradients) + 1):
        ages = [(t - s, gradients[s - 1]) for s in range(1, t + 1)]
        m_hat = sum((1 - beta1) * beta1**age * g for age, g in ages) / (1 - beta1**t)
        v_hat = sum((1 - beta2) * beta2**age * g**2 for age, g in ages) / (1 - beta2**t)
        p = p - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p)
        yield p


def adamw(p, gradients, weight_decay=0.01, **settings) -> Iterator[np.ndarray]:
    return adam(p, gradients, weight_decay=weight_decay, **settings)


CASES = [
    ("SGD", sgd, {}, {}),
    ("SGD", sgd, {"lr": 0.3}, {"lr": 0.3}),
    ("Momentum", momentum, {}, {}),
    ("Momentum", momentum, {"lr": 0.2, "momentum": 0.5}, {"lr": 0.2, "mu": 0.5}),
    ("Nesterov", nesterov, {}, {}),
    ("Nesterov", nesterov, {"lr": 0.2, "momentum": 0.5}, {"lr": 0.2, "mu": 0.5}),
    ("AdaGrad", adagrad, {}, {}),
    ("AdaGrad", adagrad, {"lr": 0.1, "eps": 0.01}, {"lr": 0.1, "eps": 0.01}),
    ("RMSProp", rmsprop, {}, {}),
    ("RMSProp", rmsprop, {"lr": 0.1, "alpha": 0.7, "eps": 0.01}, {"lr": 0.1, "alpha": 0.7, "eps": 0.01}),
    ("Adam", adam, {}, {}),
    ("Adam", adam, *[{"lr": 0.1, "beta1": 0.6, "beta2": 0.8, "eps": 0.01}] * 2),
    ("AdamW", adamw, {}, {}),
    ("AdamW", adamw, *[{"lr": 0.1, "beta1": 0.6, "beta2": 0.8, "eps": 0.01, "weight_decay": 0.2}] * 2),
]


@pytest.mark.parametrize(("name", "paper", "settings", "symbols"), CASES)
def test_each_step_is_the_papers_formula(backend, name, paper, settings, symbols):
    start, steps = host_arrays(0), [host_arrays(s) for s in range(1, 8)]
    params, optimizer = on(backend, start), getattr(optim, name)(**settings)
    expected = {key: paper(p, [g[key] for g in steps], **symbols) for key, p in start.items()}
    for gradients in steps:
        optimizer.update(params, on(backend, gradients))
        for key, p in params.items():
            # Seven steps of a dozen roundings each, on values of order 1.
            np.testing.assert_allclose(backend.to_numpy(p), next(expected[key]), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "paper", "settings", "symbols"), CASES)
def test_float32_stays_float32_and_near_the_formula(backend, name, paper, settings, symbols):
    start, steps = host_arrays(0, dtype="float32"), [host_arrays(s, dtype="float32") for s in range(1, 5)]
    params, optimizer = on(backend, start), getattr(optim, name)(**settings)
    for gradients in steps:
        optimizer.update(params, on(backend, gradients))
    for key, p in params.items():
        *_, last = paper(start[key].astype(np.float64), [g[key].astype(np.float64) for g in steps], **symbols)
        found = backend.to_numpy(p)
        assert found.dtype == np.float32
        # Four steps of a dozen roundings of 6e-8 on values up to 4.
        np.testing.assert_allclose(found, last, rtol=0, atol=4 * 12 * 6e-8 * 4)
    assert {str(backend.to_numpy(a).dtype) for a in optimizer.state.values()} <= {"float32"}
