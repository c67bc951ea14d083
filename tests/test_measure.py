import math
import subprocess
import sys
from pathlib import Path

import pytest

from bnkit import measure
from bnkit.layout import make_layout

ROOT = Path(__file__).parent.parent


def test_cases_have_legal_axes_and_names_of_their_own():
    cases = measure.cases()
    assert len({case.name for case in cases}) == len(cases) == 6 + 2 * 13 + 1
    for case in cases:
        assert math.prod(make_layout(case.shape, case.axis, None).shape) == math.prod(case.shape)


def test_both_layouts_of_an_image_case_have_the_same_channels():
    channels = {case.name: case.shape[case.axis] for case in measure.cases(resnet_batch=2) if len(case.shape) == 4}
    assert channels["NCHW 2x64x112x112"] == channels["NHWC 2x112x112x64"] == 64
    assert channels["NCHW 32x3x224x224"] == channels["NHWC 32x224x224x3"] == 3


@pytest.mark.parametrize(("op", "one", "two"), [("train", 2, 3), ("inference", 2, 2), ("backward", 3, 5)])
def test_bytes_moved_are_whole_tensors(op, one, two):
    case = measure.Case((100, 100), 1)
    assert measure.bytes_moved(op, case, 4) == one * 40_000
    assert measure.bytes_moved(op, case, 8, one_read=False) == two * 80_000


def test_time_calls_times_each_call_with_its_spread(backend):
    calls = []
    timing = measure.time_calls(lambda: calls.append(None), backend, seconds=0, least=7)
    assert len(calls) == 8  # one to warm up
    assert 0 <= timing.low <= timing.median <= timing.high


def test_copy_bandwidth_is_positive(backend):
    assert measure.copy_bandwidth(backend, nbytes=2**16) > 0


def test_the_benchmark_files_run():
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-k", "numpy-100x100", "--benchmark-disable"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout
