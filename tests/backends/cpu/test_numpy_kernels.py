"""The compiled kernels of the NumPy backend: SIMD levels, threads, fork, and the channels that need the slow path."""

import json
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from places import HELPERS

import bnkit
from bnkit import reference
from bnkit_numpy import check_level, compiled_kernels

pytestmark = pytest.mark.skipif(compiled_kernels() is None, reason="installed without the compiled kernels")

# One for each way that the kernels walk a tensor: small, blocks of columns, tall columns, runs, long runs, cut runs.
SHAPES = [(1, 7, 5, 1), (1, 100, 333, 1), (1, 5000, 67, 1), (3, 40, 70, 1), (2, 9, 31, 150), (1, 3, 2, 70001)]


def tensor(shape, dtype, seed=0, mean=0.5):
    return np.random.default_rng((seed, *shape)).normal(mean, 1.5, shape).astype(dtype)


def train_and_back(shape, dtype, activation=None, x=None):
    backend = bnkit.get_backend("numpy")
    groups, _, channels, _ = shape
    small = [tensor((1, groups, channels, 1), dtype, s).reshape(groups, channels) for s in range(4)]
    running = [small[2].copy(), small[3] ** 2]
    x, dy = (tensor(shape, dtype) if x is None else x), tensor(shape, dtype, 9)
    options = {"decay": 0.9, "eps": 1e-5, "correction": 1, "activation": activation}
    y, moments, rstd, _ = backend.batch_norm_train(reference.TrainArguments(x, *small[:2], *running, **options))
    given = (dy, x, *small[:2], moments.mean, rstd, True, moments.count)
    grads = backend.batch_norm_backward(reference.BackwardArguments(*given, activation=activation))
    return [y, *moments, rstd, *running, *grads[:3]]


def child(code, **environment):
    code = "import sys; sys.path[:0] = sys.argv[1:]\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", code, str(HELPERS), os.path.dirname(__file__)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=True
    )


CHECKSUMS = """
    import json, zlib
    from test_numpy_kernels import SHAPES, train_and_back
    from bnkit_numpy import compiled_kernels
    import bnkit
    bnkit.get_backend("numpy")
    sums = [zlib.crc32(a.tobytes()) for s in SHAPES for d in ("f", "d") for a in train_and_back(s, d)]
    print(json.dumps([compiled_kernels().kernel_level(), compiled_kernels().get_threads(), sums]))
"""


def test_the_bits_do_not_depend_on_the_threads():
    told = [json.loads(child(CHECKSUMS, BNKIT_NUM_THREADS=str(n)).stdout) for n in (1, 2, 5)]
    assert [threads for _, threads, _ in told] == [1, 2, 5]
    assert told[0][2] == told[1][2] == told[2][2]


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_every_level_that_this_machine_has_passes_the_conformance_suite(level):
    best = compiled_kernels().cpu_level()
    if not best.startswith("x86-64") or level > best:
        pytest.skip(f"this machine has {best}")
    code = """
        from bnkit import get_backend, testing
        for check in testing.backend_checks():
            check(get_backend("numpy"))
        print(get_backend("numpy").details()["simd"])
    """
    assert child(code, BNKIT_CPU_LEVEL=level).stdout.strip() == level


def test_the_level_off_leaves_the_reference():
    code = "import bnkit; print(bnkit.get_backend('numpy').details()['compiled_kernels'])"
    assert child(code, BNKIT_CPU_LEVEL="off").stdout.strip() == "False"


SETTING = """
    import bnkit
    try:
        bnkit.get_backend("numpy")
    except bnkit.BackendError as error:
        print(error)
"""


@pytest.mark.parametrize("wrong", ["avx512", "x86-64-v9", "v3", "OFF", " "])
def test_an_unknown_level_is_told(wrong):
    levels = ", ".join([*reversed(compiled_kernels().kernel_levels()), "off"])
    expected = f"BNKIT_CPU_LEVEL must be one of {levels} on this machine, got {wrong!r}; set it so, or unset it"
    assert child(SETTING, BNKIT_CPU_LEVEL=wrong).stdout.strip() == expected


def test_a_level_without_any_kernels_is_told(monkeypatch):
    monkeypatch.setenv("BNKIT_CPU_LEVEL", "x86-64-v3")
    with pytest.raises(bnkit.BackendError, match="BNKIT_CPU_LEVEL must be off where bnkit is installed without its"):
        check_level(None)


def test_a_level_that_this_machine_has_not_is_told():
    here = compiled_kernels().kernel_levels()
    others = {"x86-64-v4", "x86-64-v3", "x86-64-v2", "neon", "generic"} - set(here)
    for level in others:
        assert f"on this machine, got '{level}'" in child(SETTING, BNKIT_CPU_LEVEL=level).stdout


def test_the_levels_of_this_machine_are_those_below_its_best():
    levels = compiled_kernels().kernel_levels()
    best = compiled_kernels().cpu_level()
    x86 = ["x86-64-v4", "x86-64-v3", "x86-64-v2"]
    assert levels == (x86[x86.index(best) :] if best in x86 and levels != ["generic"] else levels[:1])


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "99999999999"])
def test_a_wrong_number_of_threads_is_told(wrong):
    assert "BNKIT_NUM_THREADS must be a positive number" in child(SETTING, BNKIT_NUM_THREADS=wrong).stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_computes_the_same():
    code = """
        import os
        from test_numpy_kernels import train_and_back
        before = train_and_back((1, 5000, 67, 1), "f")
        if (pid := os.fork()) == 0:
            same = all((a == b).all() for a, b in zip(before, train_and_back((1, 5000, 67, 1), "f")))
            os._exit(0 if same else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert child(code, BNKIT_NUM_THREADS="3").stdout.strip() == "0"


def test_sixteen_python_threads_at_once_get_the_same_bits():
    expected = {shape: train_and_back(shape, "float32") for shape in SHAPES}
    wrong = []

    def hammer(shape):
        for _ in range(20):
            found = train_and_back(shape, "float32")
            wrong.extend(i for i, (a, b) in enumerate(zip(found, expected[shape], strict=True)) if (a != b).any())

    workers = [threading.Thread(target=hammer, args=(SHAPES[i % len(SHAPES)],)) for i in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_agree_with_the_reference(shape, dtype, activation):
    got = train_and_back(shape, dtype, activation)
    groups, _, channels, _ = shape
    small = [tensor((1, groups, channels, 1), dtype, s).reshape(groups, channels) for s in range(4)]
    running = [small[2].copy(), small[3] ** 2]
    x, dy = tensor(shape, dtype), tensor(shape, dtype, 9)
    options = {"decay": 0.9, "eps": 1e-5, "correction": 1, "activation": activation}
    y, moments, rstd, _ = reference.batch_norm_train(np, reference.TrainArguments(x, *small[:2], *running, **options))
    given = (dy, x, *small[:2], moments.mean, rstd, True, moments.count)
    grads = reference.batch_norm_backward(np, reference.BackwardArguments(*given, activation=activation))
    # Half an ulp of values below 8, a few roundings, and sums of n terms that round at random in the storage dtype.
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    for a, b in zip(got, [y, *moments, rstd, *running, *grads[:3]], strict=True):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_far_from_the_mean_cost_no_precision(shape):
    x = tensor(shape, "float32")
    rows, inner = shape[1], shape[3]
    for i in range(16):  # where the kernel looks for a value near the mean
        x[:, i * rows // 16, :, i * inner // 16] = 1e6
    got = train_and_back(shape, "float32", x=x)
    moments = reference.batch_norm_moments(np, reference.MomentsArguments(x))
    deviation = np.sqrt(moments.m2 / moments.count)
    assert np.all(np.abs(got[2] - moments.mean) <= 1e-6 * deviation)  # what y then is off by
    np.testing.assert_allclose(got[3], moments.m2, rtol=1e-6)  # sums of float32 squares at most
