import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import bnkit
from bnkit.backend.layout import make_layout
from bnkit.lab.benchmark import measure


def test_cases_have_legal_axes_and_names_of_their_own():
    cases = measure.cases()
    assert len({case.name for case in cases}) == len(cases) == 6 + 2 * 13 + 1
    for case in cases:
        assert math.prod(make_layout(case.shape, case.axis, None).shape) == case.elements == math.prod(case.shape)


def test_every_layout_has_cases():
    layouts = [case.layout for case in measure.cases()]
    assert {name: layouts.count(name) for name in measure.LAYOUTS} == {"flat": 6, "NCHW": 13, "NHWC": 13, "replicas": 1}


def test_both_layouts_of_an_image_case_have_the_same_channels():
    channels = {case.name: case.shape[case.axis] for case in measure.cases(resnet_batch=2) if len(case.shape) == 4}
    assert channels["NCHW 2x64x112x112"] == channels["NHWC 2x112x112x64"] == 64
    assert channels["NCHW 32x3x224x224"] == channels["NHWC 32x224x224x3"] == 3


@pytest.mark.parametrize(
    ("op", "one", "two", "bits"),
    [
        ("train", 2, 3, 0),
        ("train-relu", 2, 3, 0),
        ("train-residual-relu", 3, 4, 1),
        ("inference", 2, 2, 0),
        ("backward", 3, 5, 0),
        ("backward-relu", 3, 5, 0),
        ("backward-residual-relu", 4, 6, 1),
    ],
)
def test_bytes_moved_are_whole_tensors_and_a_bit_an_element_behind_a_residual(op, one, two, bits):
    case = measure.Case((101, 101), 1)  # 10,201 elements, whose bits fill 1,276 bytes
    assert measure.bytes_moved(op, case, 4) == one * 40_804 + bits * 1_276
    assert measure.bytes_moved(op, case, 8, one_read=False) == two * 81_608 + bits * 1_276


@pytest.mark.parametrize(("op", "arrays"), [("sgd-step", 3), ("momentum-step", 5), ("adam-step", 7)])
def test_a_step_reads_the_gradient_and_moves_parameters_and_memories(op, arrays):
    case = measure.Case((101, 101), 1)
    assert measure.bytes_moved(op, case, 4) == measure.bytes_moved(op, case, 4, one_read=False) == arrays * 40_804


def test_every_op_has_its_bytes_tested():
    assert (len(measure.OPS), len(measure.UPDATES)) == (7, 3)


def test_samples_are_as_many_as_asked_for_after_a_warm_up(backend):
    calls = []
    times = measure.sample(lambda: calls.append(time.sleep(2e-4)), backend.elapsed, seconds=0, least=7)
    assert len(times) == 7
    assert len(calls) == 8  # one to warm up
    assert min(times) > 1e-4


def test_without_a_warm_up_every_call_counts(backend):
    calls = []
    times = measure.sample(lambda: calls.append(time.sleep(2e-4)), backend.elapsed, seconds=0, least=1, warm_up=False)
    assert (len(times), len(calls)) == (1, 1)


def test_short_calls_are_timed_several_in_a_row():
    repeats = []

    def elapsed(call, repeat):
        repeats.append(repeat)
        return 1e-5 * repeat  # a tenth of the shortest time

    assert measure.sample(lambda: None, elapsed, seconds=0, least=2) == pytest.approx([1e-5, 1e-5])
    assert repeats == [1, 10, 10]


def test_sampling_goes_on_for_its_time():
    start = time.perf_counter()
    times = measure.sample(lambda: time.sleep(1e-3), seconds=0.05, least=1)
    assert time.perf_counter() - start >= 0.05
    assert len(times) > 1


def test_a_summary_is_the_median_and_the_quartiles():
    assert measure.summarize([5.0, 1.0, 2.0, 4.0, 3.0]) == measure.Timing(3, 2, 4)
    assert measure.summarize([2.0]) == measure.Timing(2, 2, 2)


def test_time_calls_has_the_spread_around_the_median(backend):
    timing = measure.time_calls(lambda: None, backend, seconds=0, least=7)
    assert 0 <= timing.low <= timing.median <= timing.high


def test_copy_bandwidth_is_positive(backend):
    assert measure.copy_bandwidth(backend, nbytes=2**16, seconds=0) > 0


def test_the_copy_uses_the_threads_of_the_kernels(monkeypatch):
    backend = bnkit.get_backend("numpy")
    monkeypatch.setattr(backend, "details", lambda: {"threads": 3})
    workers = []
    pool = measure.ThreadPoolExecutor
    monkeypatch.setattr(measure, "ThreadPoolExecutor", lambda n: workers.append(n) or pool(n))
    copied = []
    monkeypatch.setattr(
        backend, "xp", type("xp", (), {"zeros_like": lambda a: copied.append(np.zeros_like(a)) or copied[0]})
    )
    measure.copy_bandwidth(backend, nbytes=4 * 1000, seconds=0)
    assert workers == [3]
    assert copied[0].tolist() == [1.0] * 1000, "the parts make the whole"


def test_the_rate_of_products_counts_one_on_each_thread(monkeypatch):
    backend = bnkit.get_backend("numpy")
    products = []
    run = backend.run
    monkeypatch.setattr(backend, "threads", 3)
    monkeypatch.setattr(backend, "run", lambda tasks: products.extend(run(tasks)))
    monkeypatch.setattr(backend, "elapsed", lambda call, repeat: 0.5 * repeat)
    assert measure.product_rate(backend, size=8, seconds=0) == 3 * 2 * 8**3 / 0.5
    np.testing.assert_array_equal(products, np.full((3, 8, 8), 8, np.float32))


def test_product_rate_is_positive(backend):
    assert measure.product_rate(backend, size=16, seconds=0) > 0


def test_caches_are_sizes_by_name():
    sizes = measure.caches(bnkit.get_backend("numpy"))
    assert all(name.startswith("L") and size > 0 for name, size in sizes.items())
    assert list(sizes.values()) == sorted(sizes.values())
    if sys.platform == "linux" and Path("/sys/devices/system/cpu/cpu0/cache/index0").exists():
        assert "L1" in sizes


def test_a_backend_that_tells_its_caches_is_believed(monkeypatch):
    backend = bnkit.get_backend("numpy")
    monkeypatch.setattr(backend, "details", lambda: {"caches": {"L2": 5}})
    assert measure.caches(backend) == {"L2": 5}


def test_the_benchmark_files_run():
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-k", "numpy-100x100", "--benchmark-disable"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert "7 passed" in result.stdout
