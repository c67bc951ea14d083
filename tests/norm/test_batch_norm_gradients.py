"""Every option's backward against central differences of its forward, in float64, on every backend."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend
from bnkit.testing.gradients import numerical_gradient

Host = np.ndarray[Any, Any]
# h = 1e-4: h² times a third derivative of order 1 to 10, over values of order 1
DIFFERENCES: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
MASK = np.random.default_rng(5).random((6, 3)) > 0.3


def random(*shape: int, seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "inference": {"train": False},
    "mask": {"mask": MASK},
    "mask of rows": {"mask": MASK[:, 0]},
    "relu": {"activation": "relu"},
    "residual": {"residual": random(6, 3, seed=3)},
    "residual and relu": {"residual": random(6, 3, seed=3), "activation": "relu"},
    "ghost": {"ghost": 4},
    "reduce": {"reduce": lambda a: a * 1.0},
    "mask, residual and relu": {"mask": MASK, "residual": random(6, 3, seed=3), "activation": "relu"},
    "mask and ghost": {"mask": MASK, "ghost": 4},
    "mask, ghost, residual and relu": {
        "mask": MASK,
        "ghost": 3,
        "residual": random(6, 3, seed=3),
        "activation": "relu",
    },
    "mask and reduce": {"mask": MASK, "reduce": lambda a: a * 1.0},
    "mask, reduce, residual and relu": {
        "mask": MASK,
        "reduce": lambda a: a * 1.0,
        "residual": random(6, 3, seed=3),
        "activation": "relu",
    },
    "in place": {"in_place": True},
    "in place in inference": {"in_place": True, "train": False},
    "in place and mask": {"in_place": True, "mask": MASK},
    "in place and ghost": {"in_place": True, "ghost": 4},
    "in place, mask and ghost": {"in_place": True, "mask": MASK, "ghost": 4},
    "in place and reduce": {"in_place": True, "reduce": lambda a: a * 1.0},
    "in place, mask and reduce": {"in_place": True, "mask": MASK, "reduce": lambda a: a * 1.0},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_gradients_are_the_central_differences(option: str, backend: Backend) -> None:
    given = {k: backend.asarray(v) if isinstance(v, np.ndarray) else v for k, v in OPTIONS[option].items()}
    given.setdefault("train", True)
    x, dy = random(6, 3), random(6, 3, seed=1)
    gamma, beta = np.array([0.7, -1.3, 1.9]), np.array([0.3, -0.2, 0.9])
    arrays = [backend.asarray(a.copy()) for a in (x, gamma, beta)]
    running = (np.array([0.1, -0.2, 0.3]), np.array([1.5, 0.7, 1.1]))
    xp, weight = backend.xp, backend.asarray(dy)

    def forward() -> tuple[Any, Any]:
        moved = [backend.asarray(a.copy()) for a in running]
        data = xp.asarray(arrays[0], copy=True) if given.get("in_place") else arrays[0]
        return bnkit.batch_norm(data, *arrays[1:], *moved, correction=0, **given)

    grads = bnkit.batch_norm_backward(weight, forward()[1])
    inputs: list[Any] = list(zip(arrays, grads[:3], strict=True))
    if "residual" in given:
        inputs.append((given["residual"], grads.dresidual))
    for array, gradient in inputs:
        numerical = numerical_gradient(lambda: xp.sum(forward()[0] * weight), array)
        np.testing.assert_allclose(backend.to_numpy(gradient), numerical, **DIFFERENCES)


@pytest.mark.parametrize("missing", [("gamma",), ("beta",), ("gamma", "beta")], ids=str)
def test_in_place_goes_without_gamma_and_beta_too(missing: tuple[str, ...], backend: Backend) -> None:
    gamma, beta = (
        None if n in missing else backend.asarray(random(3, seed=i)) for i, n in enumerate(("gamma", "beta"))
    )
    x, dy = backend.asarray(random(6, 3)), backend.asarray(random(6, 3, seed=1))
    want, cache = bnkit.batch_norm(x, gamma, beta, train=True)
    wanted = bnkit.batch_norm_backward(dy, cache)
    y, cache = bnkit.batch_norm(x, gamma, beta, train=True, in_place=True)
    pairs = [(y, want), *zip(bnkit.batch_norm_backward(dy, cache), wanted, strict=True)]
    for got, expected in pairs:
        assert (got is None) == (expected is None)
        if got is not None:  # float64: a division more
            np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduce", [None, lambda a: a * 1.0], ids=["alone", "with reduce"])
@pytest.mark.parametrize(
    "options", [{}, {"mask": MASK}, {"activation": "relu", "residual": random(6, 3, seed=3)}], ids=str
)
def test_renorm_takes_its_corrections_for_constants(
    options: dict[str, Any], reduce: Callable[[Any], Any] | None, backend: Backend
) -> None:
    x, dy, gamma, beta = random(6, 3), random(6, 3, seed=1), np.array([0.7, -1.3, 1.9]), np.array([0.3, -0.2, 0.9])
    mean, var, eps = np.array([0.1, -0.2, 9.0]), np.array([1.5, 0.2, 1.1]), 1e-5
    counted = np.broadcast_to(options.get("mask", True), x.shape)

    def statistics(x: Host) -> tuple[Host, Host]:
        m = np.mean(x, axis=0, where=counted)
        return m, np.sqrt(np.mean((x - m) ** 2, axis=0, where=counted) + eps)

    m, std = statistics(x)
    r, d = np.clip(std / np.sqrt(var + eps), 1 / 1.5, 1.5), np.clip((m - mean) / np.sqrt(var + eps), -2, 2)
    residual = options.get("residual", 0.0)

    def loss(x: Host, gamma: Host, beta: Host) -> float:
        m, std = statistics(x)
        y = gamma * ((x - m) / std * r + d) + beta + residual
        return float(np.sum(dy * (np.maximum(y, 0) if "activation" in options else y)))

    there = [backend.asarray(a.copy()) for a in (x, gamma, beta, mean, var)]
    given = {k: backend.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    _, cache = bnkit.batch_norm(*there, train=True, renorm=(1.5, 2.0), reduce=reduce, eps=eps, **given)
    grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    own = [a.copy() for a in (x, gamma, beta)]
    for i in range(3):
        numerical = numerical_gradient(lambda: np.asarray(loss(*own)), own[i])
        np.testing.assert_allclose(backend.to_numpy(grads[i]), numerical, **DIFFERENCES)
