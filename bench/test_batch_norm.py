"""Batch norm's reductions over batch and channels, on each usable backend: `pytest bench`, or one case by -k.

Each row has the GB/s by the bytes that the op must move at least, and their share of the backend's copy bandwidth,
measured in the same run.
"""

import math

import numpy as np
import pytest

import bnkit
from bnkit import measure


@pytest.fixture(scope="module", params=["numpy", "cupy"])
def device(request):
    """A backend, and its copy bandwidth in bytes a second."""
    try:
        backend = bnkit.get_backend(request.param)
    except bnkit.BackendError as error:
        pytest.skip(str(error))
    return backend, measure.copy_bandwidth(backend)


@pytest.mark.parametrize("op", measure.TRANSFERS)
@pytest.mark.parametrize("case", measure.cases(), ids=lambda case: case.name)
def test_batch_norm(benchmark, device, case, op):
    backend, bandwidth = device
    generator = np.random.default_rng(0)
    shape = tuple(case.shape[a] for a in ([case.axis] if isinstance(case.axis, int) else case.axis))
    x, dy = (backend.asarray(generator.standard_normal(case.shape, np.float32)) for _ in range(2))
    gamma, beta, mean = (backend.asarray(generator.standard_normal(shape, np.float32)) for _ in range(3))
    var = backend.asarray(generator.uniform(0.5, 2, shape).astype(np.float32))
    out = backend.xp.zeros_like(x)
    _, cache = bnkit.batch_norm(x, gamma, beta, train=True, axis=case.axis)

    def call():
        if op == "backward":
            bnkit.batch_norm_backward(dy, cache, out=out)
        else:
            bnkit.batch_norm(x, gamma, beta, mean, var, train=op == "train", axis=case.axis, out=out)
        backend.synchronize()

    benchmark(call)
    if benchmark.enabled:
        rate = measure.bytes_moved(op, case, 4) / benchmark.stats["median"]
        benchmark.extra_info |= {
            "GB/s": rate / 1e9,
            "share of copy": rate / bandwidth,
            "elements": math.prod(case.shape),
        }
