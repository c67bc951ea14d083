"""The kernels' threads: the same bits on any number of them, from many Python threads, after a fork, at exit."""

import json
import os
import sys
import threading
import zlib

import numpy as np
import pytest
from kernel_memory import start_child, told_by
from kernel_workload import DTYPES, SHAPES, all_results, child_checksums

from bnkit_numpy import compiled_kernels

pytestmark = pytest.mark.skipif(compiled_kernels() is None, reason="installed without the compiled kernels")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
COUNTS = (1, 2, 3, 5, 16)  # some more than this machine has cores

# What the scripts below begin with: a step big enough for all threads, and whether it is as it was at first.
STEP = """
    import os, signal, threading, time, warnings
    import numpy as np
    from bnkit import get_backend
    from bnkit.reference import TrainArguments
    from kernel_workload import all_results
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads

    SHAPES = ((1, 1200, 67, 1), (1, 3, 2, 15_001))
    def step():
        return [a.tobytes() for shape in SHAPES for a in all_results(shape, np.float32).values()]
    first = step()

    def child_of_fork(work):
        # The exit status of a child that ran work(): 0 where that was True, 1 where not, -14 where it hangs.
        if (pid := os.fork()) == 0:
            signal.alarm(60)
            os._exit(0 if work() else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def train_for_ever():
        backend, x = get_backend("numpy"), np.random.default_rng(0).normal(size=(1, 3000, 67, 1)).astype(np.float32)
        while True:
            backend.batch_norm_train(TrainArguments(x, None, None, None, None, decay=0.9, eps=1e-5, correction=1))

    def computing_threads(count):
        for _ in range(count):
            threading.Thread(target=train_for_ever, daemon=True).start()
        time.sleep(0.05)

    def print_and_leave(*words):  # without the end of an interpreter whose threads compute, which has its own test
        print(*words, flush=True)
        os._exit(0)
"""


def told(script: str, threads: int = 3) -> str:
    return told_by(start_child(STEP + script, BNKIT_NUM_THREADS=str(threads))).strip()


@pytest.mark.slow
def test_every_op_has_the_same_bits_on_any_number_of_threads() -> None:
    one, *more = child_checksums(*({"BNKIT_NUM_THREADS": str(count)} for count in COUNTS))
    assert len(one) > 1000
    for count, found in zip(COUNTS[1:], more, strict=True):
        assert [name for name in one if found[name] != one[name]] == [], f"on {count} threads"


def test_sixteen_python_threads_get_the_same_bits_from_mixed_calls() -> None:
    def checksums(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, int]:
        return {name: zlib.crc32(a.tobytes()) for name, a in all_results(shape, dtype).items()}

    work = [(shape, dtype) for shape in SHAPES for dtype in DTYPES]
    want = {key: checksums(*key) for key in work}
    wrong, start = [], threading.Barrier(16)

    def hammer(seed: int) -> None:
        start.wait()
        for i in np.random.default_rng(seed).integers(0, len(work), 8):
            found = checksums(*work[i])
            wrong.extend((*work[i], name) for name in found if found[name] != want[work[i]][name])

    workers = [threading.Thread(target=hammer, args=(seed,)) for seed in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@forks
def test_the_child_of_a_fork_and_its_child_compute_the_same() -> None:
    script = """
    in_child = lambda: step() == first
    print(child_of_fork(lambda: in_child() and child_of_fork(in_child) == 0), child_of_fork(in_child), step() == first)
    """
    assert told(script) == "0 0 True"


@forks
def test_a_fork_while_other_threads_are_inside_kernels_leaves_both_sides_working() -> None:
    script = """
    computing_threads(2)
    print_and_leave([child_of_fork(lambda: step() == first) for _ in range(8)], step() == first)
    """
    assert told(script) == f"{[0] * 8} True"


@forks
def test_a_fork_from_a_thread_computes_the_same() -> None:
    script = """
    statuses = []
    computing_threads(1)
    for _ in range(4):
        forker = threading.Thread(target=lambda: statuses.append(child_of_fork(lambda: step() == first)))
        forker.start()
        forker.join()
    print_and_leave(statuses)
    """
    assert told(script) == "[0, 0, 0, 0]"


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_backends_set_up_again_and_again_leave_no_threads_behind() -> None:
    script = """
    from bnkit_numpy import NumpyBackend
    counts = []
    for i in range(24):
        os.environ["BNKIT_NUM_THREADS"] = str(1 + i * 3 % 8)
        NumpyBackend()
        assert step() == first
        counts.append(len(os.listdir("/proc/self/task")))
    print(max(counts) - min(counts))
    """
    assert int(told(script)) <= 7  # between one thread and eight


def test_a_process_ends_well_while_daemon_threads_are_inside_kernels() -> None:
    for _ in range(3):
        assert told("\n    computing_threads(4)\n    print('done')") == "done"


def test_more_threads_than_a_machine_has_cores_are_used_and_agree() -> None:
    script = """
    import json, zlib
    print(json.dumps([get_backend("numpy").details()["threads"], [zlib.crc32(a) for a in first]]))
    """
    one, many = (json.loads(told(script, threads)) for threads in (1, 64))
    assert (one[0], many[0]) == (1, 64)
    assert one[1] == many[1]
