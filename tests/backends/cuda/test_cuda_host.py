"""What the host double of CUDA gives a kernel: numbers, places, functions of a warp, atomics, memory, schedules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_host.assembly import guarded
from cuda_host.compiler import compiled, missing_compiler, prebuild
from cuda_host.host_module import CudaHostError, HostModule
from cuda_host.schedules import SCHEDULES, same_in_every_schedule
from places import HELPERS

pytestmark = pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())

CASES = HELPERS / "cuda_host" / "shim_cases.cu"
NAMES = [
    *(f"cases::{name}<{dtype}>" for name in ("widen", "narrow") for dtype in ("__half", "__nv_bfloat16")),
    *(f"cases::{name}" for name in ("places", "shuffles", "counts", "atomics", "mathematics", "dynamic", "add_sizes")),
    "cases::turn",
]
COOPERATIVE = ["cases::turn", "cases::wait_for_all<true>", "cases::wait_for_all<false>"]
HALVES = {"__half": np.float16, "__nv_bfloat16": ml_dtypes.bfloat16}


@pytest.fixture(scope="module", params=[False, True], ids=["ordinary", "checked"])
def module(request: pytest.FixtureRequest, cuda_host_folder: Path) -> HostModule:
    return HostModule(CASES, (), NAMES, folder=cuda_host_folder, checked=request.param)


@pytest.fixture(scope="module", params=[False, True], ids=["ordinary", "checked"])
def cooperative(request: pytest.FixtureRequest, cuda_host_folder: Path) -> HostModule:
    return HostModule(CASES, (), COOPERATIVE, True, folder=cuda_host_folder, checked=request.param)


def launch(module: HostModule, name: str, grid: Any, block: Any, *args: Any, shared_mem: int = 0) -> None:
    module.get_function(f"cases::{name}")(grid, block, args, shared_mem)


def test_the_names_of_a_long_assembly_are_read_at_once() -> None:
    """Those of templates of lambdas are full of digits, of which a pattern with two loops tries every division."""
    lines = ["_ZN5bnkit5bytesE", "_ZN12_GLOBAL__N_15bytesE", "_ZN5bnkit" + "5train" * 40 + "5bytesEi", "_ZN9bytesE"]
    added = guarded("\n".join(lines), "extern __shared__ uint4 bytes[];").splitlines()[len(lines) :]
    assert [line for line in added if line.endswith(":")] == ["_ZN5bnkit5bytesE:", "_ZTHN5bnkit5bytesE:"]


@pytest.mark.parametrize("name", HALVES)
def test_every_16_bit_float_widens_as_in_numpy(module: HostModule, name: str) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(HALVES[name])
    y = np.empty(x.size, np.float32)
    launch(module, f"widen<{name}>", (256,), (256,), x, y, np.int32(x.size))
    np.testing.assert_array_equal(y, x.astype(np.float32))


@pytest.mark.parametrize("name", HALVES)
def test_floats_narrow_to_the_nearest_as_in_numpy(module: HostModule, name: str) -> None:
    exact = np.arange(2**16, dtype=np.uint16).view(HALVES[name]).astype(np.float32)
    exact = exact[np.isfinite(exact)]
    with np.errstate(over="ignore"):
        between = (np.sort(exact)[:-1].astype(np.float64) + np.sort(exact)[1:]) / 2  # the ties
    edges = [np.nan, np.inf, -np.inf, 65519.99, 65520.0, 1e-8, 2**-25, np.nextafter(np.float32(2**-25), np.float32(1))]
    x = np.concatenate([exact, between.astype(np.float32), np.float32(edges)])
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
    x = x[:: 37 if module.checked else 1].copy()
    y = np.empty(x.size, HALVES[name])
    launch(module, f"narrow<{name}>", (-(-x.size // 256),), (256,), x, y, np.int32(x.size))
    with np.errstate(over="ignore"):
        want = x.astype(HALVES[name])
    np.testing.assert_array_equal(y.astype(np.float32), want.astype(np.float32))


def test_every_thread_has_its_place(module: HostModule) -> None:
    grid, block = (2, 3, 2), (4, 2, 3)
    y = np.zeros((2, 3, 2, 3, 2, 4, 12), np.uint32)
    launch(module, "places", grid, block, y)
    for place in np.ndindex(*y.shape[:-1]):
        bz, by, bx, tz, ty, tx = place
        np.testing.assert_array_equal(y[place], [tx, ty, tz, bx, by, bz, *block, *grid])


def test_the_functions_of_a_warp_are_those_of_the_cuda_guide(module: HostModule) -> None:
    def run() -> np.ndarray:
        y = np.full((13, 32), -1, np.int32)
        launch(module, "shuffles", (1,), (32,), y)
        return y

    lane = np.arange(32)
    part = lane // 8 * 8
    want = [
        np.full(32, 5),
        part + 3,
        lane ^ 16,
        lane ^ 1,
        np.where(lane + 3 < 32, lane + 3, lane),
        np.where(lane + 3 < part + 8, lane + 3, lane),
        np.where(lane >= 3, lane - 3, lane),
        np.where(lane - 3 >= part, lane - 3, lane),
        np.full(32, sum(1 << i for i in range(0, 32, 3))),
        np.ones(32),
        np.ones(32),
        np.zeros(32),
        np.where(lane < 16, lane ^ 8, -1),
    ]
    np.testing.assert_array_equal(same_in_every_schedule(run), want)


def test_barriers_count_over_the_block(module: HostModule) -> None:
    y = np.zeros(71, np.int32)
    launch(module, "counts", (1,), (71,), y)
    np.testing.assert_array_equal(y, 24 * 100 + 10)


def test_atomics_give_the_same_in_every_order(module: HostModule) -> None:
    def run() -> np.ndarray:
        y = np.zeros(6, np.uint32)
        launch(module, "atomics", (2,), (45,), y)
        return y[[0, 1, 2, 4, 5]]

    np.testing.assert_array_equal(same_in_every_schedule(run), [180, 44, 0, 7, 2**32 - 1])


def test_mathematics_is_that_of_the_cuda_guide(module: HostModule) -> None:
    x = np.float32([np.nan, 2.5, -6.25])
    y = np.zeros(8, np.float32)
    launch(module, "mathematics", (1,), (1,), x, y)
    root = np.float32(1 / np.sqrt(np.float64(2.5)))
    np.testing.assert_array_equal(y, np.float32([2.5, 2.5, root, 0, 15, np.nextafter(x[1], x[1] + 1), 3, 68]))


@pytest.mark.parametrize("n", [1, 100, 227 * 1024 // 4])
def test_dynamic_shared_memory_is_as_large_as_the_launch_says(module: HostModule, n: int) -> None:
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    y = np.zeros(n, np.float32)
    launch(module, "dynamic", (1,), (64,), x, y, np.int32(n), shared_mem=4 * n)
    np.testing.assert_array_equal(y, x[::-1])
    with pytest.raises(CudaHostError, match="out of bounds"):
        launch(module, "dynamic", (1,), (64,), x, y, np.int32(n), shared_mem=4 * n - 4)


def test_structs_and_bools_are_passed_by_value(module: HostModule) -> None:
    sizes = np.array((3, 4), np.dtype([("rows", np.int64), ("columns", np.int64)]))[()]
    y = np.zeros(1)
    launch(module, "add_sizes", (1,), (1,), sizes, np.True_, y)
    assert y == 14


def test_blocks_of_a_cooperative_launch_wait_for_each_other(cooperative: HostModule) -> None:
    start = np.random.default_rng(0).normal(size=(6, 33)).astype(np.float32)

    def run() -> np.ndarray:
        x = start.copy()
        launch(cooperative, "turn", (6,), (33,), x, np.zeros_like(x), np.int32(4))
        return x

    np.testing.assert_array_equal(same_in_every_schedule(run), np.roll(start, -4, axis=0))


def test_a_grid_barrier_that_a_block_does_not_reach_is_an_error(cooperative: HostModule) -> None:
    x = np.zeros(96, np.float32)
    launch(cooperative, "wait_for_all<true>", (3,), (32,), x)
    assert x.all()
    with pytest.raises(CudaHostError, match=r"divergent barrier: \d blocks wait at the barrier of the grid"):
        launch(cooperative, "wait_for_all<false>", (3,), (32,), x)


def test_a_grid_barrier_needs_a_cooperative_launch(module: HostModule) -> None:
    x = np.zeros(64, np.float32)
    with pytest.raises(CudaHostError, match="needs a cooperative launch"):
        launch(module, "turn", (2,), (32,), x, x.copy(), np.int32(1))


def test_a_library_is_compiled_once(cuda_host_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prebuild([(CASES, (), NAMES, False)], cuda_host_folder, checked=False)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: pytest.fail("the compiler was called"))
    HostModule(CASES, (), NAMES, folder=cuda_host_folder)


@pytest.mark.parametrize(("options", "names"), [(("-DN=2",), ["cases::counts"]), ((), ["cases::atomics"])])
def test_options_and_names_make_another_library(
    cuda_host_folder: Path, options: Sequence[str], names: list[str]
) -> None:
    one = compiled(CASES, options, names, cuda_host_folder, checked=False)
    assert one != compiled(CASES, (), ["cases::counts"], cuda_host_folder, checked=False)


def test_the_compiler_says_what_it_does_not_take(tmp_path: Path, cuda_host_folder: Path) -> None:
    (tmp_path / "wrong.cu").write_text("__global__ void wrong(float* y) { y[0] = unknown; }\n")
    with pytest.raises(RuntimeError, match=r"wrong\.cu:1"):
        HostModule(tmp_path / "wrong.cu", (), ["wrong"], folder=cuda_host_folder)


def test_fibers_work_without_assembly_of_their_own(cuda_host_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOST_FLAGS", "-DCUDA_HOST_UCONTEXT")
    module = HostModule(CASES, (), ["cases::counts"], folder=cuda_host_folder)
    test_barriers_count_over_the_block(module)


def test_a_schedule_is_the_same_each_time() -> None:
    assert len(set(SCHEDULES)) == len(SCHEDULES)
