"""The host double of CUDA finds what it must: kernels with one bug are caught, and pass without it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import bug_cases
from cuda_host.bug_cases import BUGS, COOPERATIVE, NAMES, launched, of
from cuda_host.compiler import missing_compiler
from cuda_host.host_module import CudaHostError, HostModule
from cuda_host.schedules import SCHEDULES, same_in_every_schedule, use_schedule

pytestmark = pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())

RIGHT = [name for name in (*NAMES, *COOPERATIVE) if "false" not in name and name != "sum_by_atomics"]
ORDER = "depends on the order"
# kernel: (what an ordinary launch shows, what a checked launch says)
CAUGHT = {
    "reverse_tile<false>": (ORDER, "nothing has written, in tile"),
    "reverse_warp<false>": (ORDER, "nothing has written, in tile"),
    "add_neighbours<false>": (ORDER, "race: writes what another thread reads"),
    "add_first_half<false>": ("32 threads of the block have returned, 32 wait",) * 2,
    "add_halves<false>": ("divergent barrier: threads of a block wait in different places",) * 2,
    "sum_of_warp<false>": ("a lane that has returned|deadlock: .* 16 within a warp",) * 2,
    "copy<false>": ("out of bounds: wrote behind the array of argument 1", "out of bounds: writes .*bugs.cu:[0-9]+"),
    "shift_tile<false>": ("wrote behind the shared array tile", "out of bounds: writes memory"),
    "shift_dynamic<false>": ("wrote behind the shared array dynamic_shared", "out of bounds: writes memory"),
    "wait_for_flag<false>": ("deadlock: .* 1 in a loop",) * 2,
    "sum_by_atomics": (ORDER, ORDER),
}
# What no result on this machine shows, or only one that is read by a person.
CHECKED_ONLY = {
    "sum_of_tile<false>": "reads shared memory that nothing has written, in tile",
    "read_behind<false>": "out of bounds: reads memory",
    "sum_of_blocks<false, true>": "race: reads what another thread writes",
    "sum_of_blocks<true, false>": "race: reads what another thread writes",
    "reverse_blocks<false>": "race: reads what another thread writes",
}


class Modules:
    """The kernels of bugs.cu, in an ordinary or a checked module."""

    def __init__(self, folder: Path, checked: bool) -> None:
        self.plain = HostModule(BUGS, names=NAMES, folder=folder, checked=checked)
        self.cooperative = HostModule(BUGS, names=COOPERATIVE, cooperative=True, folder=folder, checked=checked)

    def launch(self, kernel: str) -> np.ndarray:
        return launched(self.cooperative if kernel in COOPERATIVE else self.plain, kernel)


@pytest.fixture(scope="module")
def ordinary(cuda_host_folder: Path) -> Modules:
    return Modules(cuda_host_folder, checked=False)


@pytest.fixture(scope="module")
def checked(cuda_host_folder: Path) -> Modules:
    return Modules(cuda_host_folder, checked=True)


@pytest.mark.parametrize("kernel", RIGHT)
def test_a_right_kernel_passes(ordinary: Modules, checked: Modules, kernel: str) -> None:
    result = same_in_every_schedule(lambda: ordinary.launch(kernel))
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(same_in_every_schedule(lambda: checked.launch(kernel)), result)


@pytest.mark.parametrize("kernel", CAUGHT)
def test_a_bug_is_caught(ordinary: Modules, checked: Modules, kernel: str) -> None:
    for modules, message in zip((ordinary, checked), CAUGHT[kernel]):
        with pytest.raises((CudaHostError, AssertionError), match=message):
            same_in_every_schedule(lambda m=modules: m.launch(kernel))


@pytest.mark.parametrize("kernel", CHECKED_ONLY)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_checked_launch_catches_what_no_result_shows(checked: Modules, kernel: str, schedule: Any) -> None:
    with use_schedule(schedule), pytest.raises(CudaHostError, match=CHECKED_ONLY[kernel]):
        checked.launch(kernel)


def test_shared_memory_that_was_not_written_is_nan(ordinary: Modules) -> None:
    assert np.isnan(ordinary.launch("sum_of_tile<false>")).all()


def test_a_read_behind_an_array_is_nan(ordinary: Modules) -> None:
    assert np.isnan(ordinary.launch("read_behind<false>")[-1])


def test_a_launch_after_a_failed_one_is_right(ordinary: Modules) -> None:
    expected = ordinary.launch("add_first_half<true>")
    with pytest.raises(CudaHostError):
        ordinary.launch("add_first_half<false>")
    np.testing.assert_array_equal(ordinary.launch("add_first_half<true>"), expected)


@pytest.mark.parametrize(
    ("place", "argument", "message"),
    [
        (2, 48, "argument 2 must be a scalar of int32, got int"),
        (2, np.int64(48), "argument 2 must be a scalar of int32, got int64"),
        (2, np.float32(48), "argument 2 must be a scalar of int32, got float32"),
        (0, np.zeros(48), "argument 0 must be None or an array of float32, got an array of float64"),
        (1, np.int32(0), "argument 1 must be None or an array of float32, got int32"),
    ],
)
def test_an_argument_of_another_type_is_refused(ordinary: Modules, place: int, argument: Any, message: str) -> None:
    args = list(of("copy<true>").args)
    args[place] = argument
    with pytest.raises(TypeError, match=message):
        ordinary.plain.get_function("copy<true>")((1,), (64,), tuple(args))


def test_another_number_of_arguments_is_refused(ordinary: Modules) -> None:
    with pytest.raises(TypeError, match="takes 3 arguments, got 2"):
        ordinary.plain.get_function("copy<true>")((1,), (64,), of("copy<true>").args[:2])


@pytest.mark.parametrize(("grid", "block", "shared_mem"), [((0,), (64,), 0), ((1,), (2048,), 0), ((1,), (64,), 2**20)])
def test_a_launch_that_no_device_can_do_is_refused(
    ordinary: Modules, grid: tuple[int], block: tuple[int], shared_mem: int
) -> None:
    with pytest.raises(CudaHostError, match="may"):
        ordinary.plain.get_function("copy<true>")(grid, block, of("copy<true>").args, shared_mem)


def test_overlapping_arrays_are_one_memory(ordinary: Modules) -> None:
    memory = bug_cases.x(49)
    expected = memory.copy()
    expected[1:] = 2 * expected[:-1]
    with use_schedule(SCHEDULES[1]):  # backwards, each element is read before it is written
        ordinary.plain.get_function("copy<true>")((1,), (64,), (memory[:-1], memory[1:], np.int32(48)))
    np.testing.assert_array_equal(memory, expected)
