"""The cases and ops of `bnkit bench` under pytest-benchmark, on each usable backend: `pytest bench`; -k chooses.

A row has the GB/s, from the bytes that the op must move, and their share of the backend's copy bandwidth, which the
same run measures. `bnkit bench` also compares with other libraries.
"""

import pytest

import bnkit
from bnkit.lab.benchmark import measure, workload


@pytest.fixture(scope="module", params=["numpy", "cupy"])
def device(request):
    """A backend, and its copy bandwidth in bytes a second."""
    try:
        backend = bnkit.get_backend(request.param)
    except bnkit.BackendError as error:
        pytest.skip(str(error))
    return backend, measure.copy_bandwidth(backend)


@pytest.mark.parametrize("op", measure.OPS)
@pytest.mark.parametrize("case", measure.cases(), ids=lambda case: case.name)
def test_batch_norm(benchmark, device, case, op):
    backend, bandwidth = device
    call = workload.function_call(workload.arrays(backend, case, "float32"), case, op)

    def synchronous():
        call()
        backend.synchronize()

    benchmark(synchronous)
    if benchmark.enabled:
        rate = measure.bytes_moved(op, case, 4) / benchmark.stats["median"]
        benchmark.extra_info |= {"GB/s": rate / 1e9, "share of copy": rate / bandwidth, "elements": case.elements}
