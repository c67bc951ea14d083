"""The products of a first layer under pytest-benchmark: the op beside the reference, the product of the array module.

x is (rows, 784) with a share of elements that are not 0: a fifth, as in MNIST's images, or a third, up to which it is
worth skipping zeros. W is (784, 100) for each replica.
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
@pytest.mark.parametrize("nonzero", [0.2, 0.33])
@pytest.mark.parametrize(("replicas", "rows"), [(1, 100), (1, 1000), (6, 60), (16, 100)])
def test_first_layer(benchmark, backend, replicas, rows, nonzero, product, by):
    rng = np.random.default_rng(0)
    x = backend.asarray((rng.random((rows, 784)) * (rng.random((rows, 784)) < nonzero)).astype(np.float32))
    inner, columns = (784, 100) if product == "forward" else (rows, 100)
    a = x if product == "forward" else backend.xp.matrix_transpose(x)
    b = backend.asarray(rng.standard_normal((replicas, inner, columns), np.float32))
    call = backend.matmul if by == "op" else functools.partial(reference.matmul, backend.xp)

    def task():  # runs with the threads of one task, as networks that train in lockstep do
        call(a, b)
        backend.synchronize()

    backend.run([lambda: benchmark(task), lambda: None])
