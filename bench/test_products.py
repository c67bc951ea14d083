"""Products of a first layer under pytest-benchmark: the op beside the reference's, which is the array module's own.

x is (rows, 784) with a share of others than 0: a fifth, as in MNIST's images, or as many as are still worth leaving out
zeros for. W is (784, 100) for each replica.
"""

import functools

import numpy as np
import pytest

import bnkit
from bnkit import reference


@pytest.fixture(scope="module", params=["numpy", "cupy"])
def backend(request):
    try:
        return bnkit.get_backend(request.param)
    except bnkit.BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("by", ["op", "reference"])
@pytest.mark.parametrize("product", ["forward", "gradient"])
@pytest.mark.parametrize("others", [0.2, 0.33])
@pytest.mark.parametrize(("replicas", "rows"), [(1, 100), (1, 1000), (6, 60), (16, 100)])
def test_first_layer(benchmark, backend, replicas, rows, others, product, by):
    rng = np.random.default_rng(0)
    x = backend.asarray((rng.random((rows, 784)) * (rng.random((rows, 784)) < others)).astype(np.float32))
    inner, columns = (784, 100) if product == "forward" else (rows, 100)
    a = x if product == "forward" else backend.xp.matrix_transpose(x)
    b = backend.asarray(rng.standard_normal((replicas, inner, columns), np.float32))
    call = backend.matmul if by == "op" else functools.partial(reference.matmul, backend.xp)

    def task():  # with the threads of a task, as networks train in lockstep
        call(a, b)
        backend.synchronize()

    backend.run([lambda: benchmark(task), lambda: None])
