"""What is told before a CUDA kernel is launched: wrong arguments by name, and which modules and blocks there can be."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_host.device_array import DeviceArray
from cuda_host.host_backend import ONE_READ, TWO_READS, CudaHostBackend, OverHost

import bnkit
from bnkit.reference import (
    BackwardArguments,
    GradientSumsArguments,
    InferenceArguments,
    MomentsArguments,
    StepArguments,
    TrainArguments,
)
from bnkit_cupy import device, launch, plan
from bnkit_cupy.launch import Launcher

Array = np.ndarray[Any, Any]
SHAPE = (1, 6, 8, 1)
H100 = plan.Limits(multiprocessors=132, cooperative=True, shared=227 * 1024)
A10 = plan.Limits(multiprocessors=72, cooperative=True, shared=99 * 1024)
T4 = plan.Limits(multiprocessors=40, cooperative=True, shared=64 * 1024)


class Compiled:
    """A loader whose kernels do nothing; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, path: Path, options: tuple[str, ...], names: tuple[str, ...], cooperative: bool) -> "Compiled":
        self.asked.append((path, options, names, cooperative))
        return self

    def get_function(self, name: str) -> Any:
        assert any(name in names for _, _, names, _ in self.asked)
        return lambda *arguments: None


def ops_by(loader: Compiled, limits: plan.Limits = TWO_READS) -> OverHost:
    return OverHost(CudaHostBackend(limits=limits, load=loader))


@pytest.fixture
def ops() -> OverHost:
    return ops_by(Compiled())


def arrays(dtype: Any = np.float32) -> dict[str, Any]:
    x = np.ones(SHAPE, dtype)
    small = dict.fromkeys(("gamma", "beta", "running_mean", "running_var"), np.ones((1, 8), np.float32))
    return {"x": x, "residual": x, "out": np.empty_like(x), **small}


def train(ops: Any, given: dict[str, Any]) -> Any:
    return ops.batch_norm_train(TrainArguments(**given, decay=0.9, eps=1e-5, correction=1))


def shifted(a: Array, by: int) -> Array:
    buffer = np.zeros(a.nbytes + 16, np.uint8)
    return np.ndarray(a.shape, a.dtype, buffer=buffer, offset=by)


def test_an_array_of_the_host_is_named(ops: OverHost) -> None:
    given = {name: DeviceArray(a) for name, a in arrays().items()}
    with pytest.raises(bnkit.BackendError, match=r"^gamma must lie on device cuda_host, got one on cpu; move it"):
        train(ops.backend, given | {"gamma": np.ones((1, 8), np.float32)})
    assert ops.launches == []


@pytest.mark.parametrize("name", ["residual", "out", "gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda a: a.astype(np.float16), TypeError, "must be float32, got float16"),
        (lambda a: a.astype(">f4"), TypeError, "must be float32, got float32"),
        (lambda a: a.tolist(), TypeError, "must be an array, got list"),
        (lambda a: a[..., :1].copy() if a.ndim == 2 else a[:, :3], ValueError, "must have shape"),
        (lambda a: np.repeat(a, 2, 1)[:, ::2], ValueError, "must be C contiguous, got strides"),
        (lambda a: shifted(a, 2), ValueError, "must be aligned to its 4 bytes, got 0x"),
    ],
    ids=["dtype", "byte order", "type", "shape", "layout", "alignment"],
)
def test_a_wrong_argument_is_named_before_a_launch(
    ops: OverHost, name: str, spoil: Any, error: type[Exception], said: str
) -> None:
    given = arrays()
    given[name] = spoil(given[name])
    with pytest.raises(error, match=f"^{name} {said}"):
        train(ops, given)
    assert ops.launches == []


def test_an_array_on_another_device_is_named(ops: OverHost) -> None:
    class Elsewhere(DeviceArray):
        device = SimpleNamespace(id=1)

    with pytest.raises(bnkit.BackendError, match=r"^gamma must lie on device cuda_host, got one on 1; move it"):
        train(ops, arrays() | {"gamma": Elsewhere(np.ones((1, 8), np.float32))})
    assert ops.launches == []


def test_bits_of_another_shape_are_named(ops: OverHost) -> None:
    made = train(ops, arrays() | {"residual": np.ones(SHAPE, np.float32)})
    statistics = (made.moments.mean, made.rstd)
    x, words = np.ones(SHAPE, np.float32), np.zeros((1, 1, 1), np.uint32)
    with pytest.raises(ValueError, match=r"^active must have shape"):
        ops.batch_norm_gradient_sums(GradientSumsArguments(x, x, None, None, *statistics, None, "relu", words))


def test_a_module_is_loaded_once(ops: OverHost) -> None:
    loader = Compiled()
    ops = ops_by(loader)
    for dtype in (np.float32, np.float32, np.float64):
        x = np.ones(SHAPE, dtype)
        for _ in range(2):
            ops.batch_norm_moments(MomentsArguments(x))
    assert [names[0] for _, _, names, _ in loader.asked] == [
        f"bnkit::moments<{stored}, 1, false>" for stored in ("float", "double")
    ]


def test_every_module_that_there_can_be_is_asked_for_by_an_op() -> None:
    """The double refuses what `instantiations()` does not tell of."""
    known, asked = set(launch.instantiations()), set()
    # Tall enough for parts and short enough for none, in both layouts, with and without whole vectors.
    shapes = [(1, 2200, 8, 1), (1, 5003, 3, 1), (1, 4, 8, 1), (1, 2, 3, 49), (1, 40_000, 2, 32)]
    for limits in (ONE_READ, TWO_READS):
        for stored in launch.STORED:
            if stored == "bfloat16":
                continue  # in NumPy of another package; its names are made as the others are
            loader = Compiled()
            ops = ops_by(loader, limits)
            for shape in shapes:
                x = np.ones(shape, stored)
                made = ops.batch_norm_train(
                    TrainArguments(x, None, None, None, None, decay=0.9, eps=1e-5, correction=1)
                )
                statistics = (made.moments.mean, made.rstd)
                ops.batch_norm_backward(
                    BackwardArguments(x, x, None, None, *statistics, train=True, count=made.moments.count)
                )
                ops.batch_norm_inference(InferenceArguments(x, None, None, *statistics, eps=1e-5))
                ops.batch_norm_gradient_sums(GradientSumsArguments(x, x, None, None, *statistics))
            ops.softmax_cross_entropy(np.ones((3, 4), stored), np.zeros(3, np.int64))
            ops.uniform((0, 0, 0), (5,))
            if stored in launch.STEPPED:
                ops.optimizer_step(StepArguments("sgd", *np.ones((2, 5), stored), (), 0.1))
            asked |= set(loader.asked)
    assert {(path.stem, cooperative) for path, _, _, cooperative in asked} == {
        (path.stem, cooperative) for path, _, _, cooperative in known
    }
    assert all(path.is_file() for path, _, _, _ in known)
    assert {path.stem for path, _, _, _ in known} == {path.stem for path in launch.KERNELS.glob("*.cu")}


def test_views_without_elements_and_with_unknown_dtypes_are_left_to_the_reference(ops: OverHost) -> None:
    empty = InferenceArguments(np.ones((1, 0, 3, 1)), None, None, *np.ones((2, 1, 3)), eps=1e-5)
    assert ops.batch_norm_inference(empty)[0].size == 0
    assert ops.batch_norm_moments(MomentsArguments(np.ones(SHAPE, np.longdouble))).mean.shape == (1, 8)
    assert ops.launches == []


@pytest.mark.parametrize(
    ("shape", "itemsize", "expected"),
    [
        ((1, 100, 100, 1), 4, (False, 4, 8, 32, 4, 100)),
        ((1, 100, 101, 1), 4, (False, 1, 32, 8, 4, 100)),
        ((2, 9, 3, 1), 4, (False, 1, 4, 64, 2, 9)),
        ((1, 9, 16, 1), 2, (False, 8, 2, 128, 1, 9)),
        ((2, 5, 3, 49), 4, (True, 1, 1, 256, 6, 245)),
        ((1, 5, 3, 64), 8, (True, 2, 1, 256, 3, 160)),
    ],
)
def test_a_view_is_cut_into_these_tiles(shape: tuple[int, ...], itemsize: int, expected: tuple[Any, ...]) -> None:
    assert tuple(plan.geometry_of(shape, itemsize)) == expected


@pytest.mark.parametrize("shape", [(1, 7, 3, 1), (1, 100_003, 64, 1), (1, 65_536, 256, 1), (1, 256, 64, 12_544)])
def test_the_parts_of_a_tile_are_all_of_it_and_none_is_empty(shape: tuple[int, ...]) -> None:
    geometry = plan.geometry_of(shape, 4)
    for cut in (plan.two_reads(geometry, H100), plan.one_read("train", geometry, H100, 4)):
        if cut is None:
            continue
        assert (cut.splits - 1) * cut.chunk < geometry.positions <= cut.splits * cut.chunk
        assert cut.chunk % geometry.height == 0
    assert plan.two_reads(geometry, H100).blocks <= max(4 * 132 + geometry.tiles, geometry.tiles)


@pytest.mark.parametrize(
    ("limits", "kernel", "shape", "splits", "kept"),
    [
        (H100, "train", (1, 1024, 4096, 1), 1, 16),  # 128 tiles of 32 steps
        (H100, "train", (1, 3136, 256, 1), 7, 0),
        (H100, "train", (1, 32, 64, 3136), 2, 33),
        (H100, "backward", (1, 32, 64, 3136), None, None),  # 51 MB
        (H100, "backward", (1, 64, 256, 196), 1, 5),
        (H100, "train", (1, 256, 2048, 49), 1, 41),  # single elements
        (H100, "train", (1, 65_536, 256, 1), None, None),  # 67 MB
        (H100, "train", (1, 1024, 2112, 1), 2, 0),  # 66 tiles
        (H100, "train", (1, 1536, 2144, 1), None, None),  # 67 tiles have one block each, and the others nothing to do
        (H100, "train", (1, 1024, 4256, 1), None, None),  # 133 tiles: a second turn for the last one
        (A10, "train", (1, 1024, 4096, 1), 1, 16),
        (T4, "train", (1, 1024, 4096, 1), None, None),
        (T4, "train", (1, 832, 1280, 1), 1, 10),
        (T4, "backward", (1, 416, 1280, 1), 1, 5),
        (T4._replace(cooperative=False), "train", (1, 832, 1280, 1), 1, 10),
        (T4._replace(cooperative=False), "train", (1, 832, 640, 1), None, None),
    ],
)
def test_what_registers_do_not_hold_goes_to_shared_memory(
    limits: plan.Limits, kernel: str, shape: tuple[int, ...], splits: int | None, kept: int | None
) -> None:
    geometry = plan.geometry_of(shape, 4)
    cut = plan.one_read(kernel, geometry, limits, 4)
    if splits is None or kept is None:
        assert cut is None
        return
    assert cut is not None
    each = cut.chunk // geometry.height
    arrays = {"train": 1, "backward": 2}[kernel]
    bytes_of_a_step = plan.THREADS * geometry.vector * 4 * arrays
    assert (cut.splits, cut.shared) == (splits, kept * bytes_of_a_step)
    assert each <= plan.HELD[kernel][geometry.vector] + kept
    if kept:
        assert cut.shared + plan.OWN_SHARED <= limits.shared


def test_the_kernels_take_no_more_shared_memory_than_the_plan_leaves_them() -> None:
    table = json.loads((launch.KERNELS / "registers.json").read_text())["kernels"]
    own = [
        taken[1]
        for name, row in table.items()
        if name.startswith(("train.cu", "backward.cu"))
        for taken in row.values()
    ]
    assert own
    assert plan.OWN_SHARED - 1024 < max(own) <= plan.OWN_SHARED


def test_a_kernel_is_told_of_shared_memory_before_it_gets_more() -> None:
    told: list[Any] = []

    class Kernel:
        def __setattr__(self, name: str, value: int) -> None:
            told.append((name, value))

        def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
            told.append(shared_mem)

    class Module:
        def get_function(self, name: str) -> Kernel:
            return Kernel()

    kernel = device.RawKernels(Module()).get_function("train")
    for shared in (0, 90_000, 50_000, 90_000, 100_000):
        kernel((1,), (256,), (), shared)
    told_of = "max_dynamic_shared_size_bytes"
    assert told == [0, (told_of, 90_000), 90_000, 50_000, 90_000, (told_of, 100_000), 100_000]


def test_a_null_pointer_reaches_cupy_as_one_and_the_texts_of_the_headers_its_cache() -> None:
    told: list[Any] = []

    class Module:
        def get_function(self, name: str) -> Any:
            return lambda grid, block, arguments, *, shared_mem: told.append((name, grid, block, arguments))

    class Cupy:
        @staticmethod
        def RawModule(**options: Any) -> Module:
            told.append(options)
            return Module()

    launcher = Launcher(Cupy, device.raw_module_loader(Cupy), TWO_READS, 0)
    launcher("bnkit::uniform", 3, (None, np.int64(5)))
    options, (name, grid, block, arguments) = told
    assert options["name_expressions"] == ("bnkit::uniform",)
    assert options["enable_cooperative_groups"] is False
    assert any(o.startswith("-DBNKIT_KERNELS=") for o in options["options"])
    assert (name, grid, block) == ("bnkit::uniform", (3,), (256, 1))
    assert [(type(a), int(a)) for a in arguments] == [(np.uint64, 0), (np.int64, 5)]
