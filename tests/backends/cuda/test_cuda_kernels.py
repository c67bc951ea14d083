"""The CUDA kernels, executed on the CPU: the conformance suite on every path, and the same bits in any order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_host.host_backend import DEVICES, CudaHostBackend, needs_compiler
from cuda_host.schedules import PARALLEL, same_in_every_schedule, use_schedule

import bnkit
from bnkit.backend import Backend
from bnkit.reference import BackwardArguments, TrainArguments
from bnkit.testing import backend_checks
from bnkit.testing.cases import make_data

pytestmark = needs_compiler


@pytest.fixture(scope="module", params=DEVICES)
def host(request: pytest.FixtureRequest) -> CudaHostBackend:
    backend = CudaHostBackend(limits=DEVICES[request.param])
    backend.prebuild()
    return backend


@pytest.mark.parametrize("check", backend_checks(), ids=lambda check: check.__name__)
def test_the_kernels_do_what_a_backend_must(host: CudaHostBackend, check: Callable[[Backend], None]) -> None:
    with use_schedule(PARALLEL):
        check(host)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(1, 700, 24, 1), (2, 9, 3, 40), (1, 5, 2, 513)])
def test_no_bit_depends_on_the_order_of_threads(host: CudaHostBackend, shape: tuple[int, ...], dtype: str) -> None:
    data = make_data(shape, dtype)

    def run() -> tuple[np.ndarray, ...]:
        x, dy, residual, gamma, beta, mean, var = (
            host.asarray(a)
            for a in (data.x, data.dy, data.residual, data.gamma, data.beta, data.running_mean, data.running_var)
        )
        y, moments, rstd, active = host.batch_norm_train(
            TrainArguments(x, gamma, beta, mean, var, 0.9, 1e-5, 1, residual=residual, activation="relu")
        )
        given = (dy, x, gamma, beta, moments.mean, rstd, True, moments.count)
        gradients = host.batch_norm_backward(BackwardArguments(*given, activation="relu", active=active, residual=True))
        return tuple(map(host.to_numpy, (y, moments.mean, rstd, active, mean, var, *gradients)))

    same_in_every_schedule(run)


def test_batch_norm_runs_on_the_kernels() -> None:
    host = bnkit.get_backend("cuda_host")
    x = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    gamma, beta = np.float32(np.linspace(0.5, 2, 12)), np.float32(np.linspace(-1, 1, 12))
    y, cache = bnkit.batch_norm(*map(host.asarray, (x, gamma, beta)), train=True)
    gradients = bnkit.batch_norm_backward(host.asarray(x * 2), cache)
    want, want_cache = bnkit.batch_norm(x, gamma, beta, train=True)
    want_gradients = bnkit.batch_norm_backward(x * 2, want_cache)
    for got, expected in zip((y, *gradients), (want, *want_gradients)):
        if expected is not None:
            # A few roundings of float32, at sums of 64 terms.
            np.testing.assert_allclose(host.to_numpy(got), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"in_place": True},
        {"in_place": True, "ghost": 16},
        {"renorm": (1.5, 0.5)},
        {"renorm": (1.5, 0.5), "activation": "relu", "reduce": lambda a: a * 1.0},
        {"mask": np.arange(64) % 3 > 0, "in_place": True},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("statistics", ["float32", "float64"])
def test_options_that_are_composed_of_ops_run_on_the_kernels(options: dict[str, Any], statistics: str) -> None:
    results = []
    for backend in (bnkit.get_backend("cuda_host"), bnkit.get_backend("numpy")):
        x = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
        arrays = [np.float32(np.linspace(0.5, 2, 12)), np.float32(np.linspace(-1, 1, 12))]
        arrays += [np.full(12, 0.1, statistics), np.full(12, 0.5, statistics)]
        there = [backend.asarray(a) for a in (x, *arrays)]
        own = {k: backend.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        y, cache = bnkit.batch_norm(*there, train=True, **own)
        grads = bnkit.batch_norm_backward(backend.asarray(np.float32(np.sin(np.arange(768.0)).reshape(64, 12))), cache)
        results.append([backend.to_numpy(a) for a in (y, *there[3:], *grads[:3])])
    for got, want in zip(*results):
        # A few roundings of float32, at sums of 64 terms.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
