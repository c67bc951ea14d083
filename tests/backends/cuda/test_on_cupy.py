"""What only a GPU can show of the CuPy backend: calls captured into a CUDA graph, and bfloat16 as CuPy has it.

bench/gpu.sh runs it there; elsewhere it is skipped.
"""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bnkit

Host = np.ndarray[Any, Any]
# One block a tile; blocks that count each other, with one read on a large device and with two; runs of a channel.
STEPS = [((100, 100), 1), ((4096, 64), 1), ((65_536, 64), 1), ((32, 64, 28, 28), 1), ((16, 7, 7, 24), -1)]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def values(shape: tuple[int, ...], channels: int, dtype: Any, seed: int) -> list[Host]:
    """x, dy, the residual, gamma, beta, running_mean and running_var"""
    rng = np.random.default_rng(seed)
    large = [(rng.standard_normal(shape, np.float32) * 2 + 1).astype(dtype) for _ in range(3)]
    return [*large, *(rng.uniform(0.5, 2, channels).astype(np.float32) for _ in range(4))]


def step(axis: int, x: Any, dy: Any, residual: Any, *small: Any) -> tuple[Any, ...]:
    y, cache = bnkit.batch_norm(x, *small, train=True, axis=axis, residual=residual, activation="relu")
    return y, *bnkit.batch_norm_backward(dy, cache), *small[2:]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("shape", "axis"), STEPS, ids=str)
def test_a_captured_step_replays_with_the_bits_of_an_eager_one(
    shape: tuple[int, ...], axis: int, dtype: str, cupy_backend: Any
) -> None:
    cupy = cupy_backend.xp
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        arrays = [cupy.asarray(a) for a in values(shape, shape[axis], dtype, 0)]
        step(axis, *arrays)  # compiles, and fills the pool
        stream.begin_capture()
        try:
            captured = step(axis, *arrays)
        finally:
            graph = stream.end_capture()
        for seed in (1, 2):  # a counter that a replay left behind would stop the next one
            given = values(shape, shape[axis], dtype, seed)
            for a, host in zip(arrays, given):
                a[...] = cupy.asarray(host)
            graph.launch(stream)
            stream.synchronize()
            replayed = [a.get().tobytes() for a in captured]
            assert replayed == [a.get().tobytes() for a in step(axis, *map(cupy.asarray, given))]


def test_a_captured_loss_and_uniforms_replay_with_the_bits_of_eager_ones(cupy_backend: Any) -> None:
    cupy, rng = cupy_backend.xp, np.random.default_rng(0)
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    first, second = rng.normal(size=(2, 3, 33, 37)).astype(np.float32)

    def run() -> tuple[Any, ...]:
        drawn = cupy_backend.uniform(([3, 2**40], 2, 3), (2, 65))
        return *cupy_backend.softmax_cross_entropy(logits, labels), drawn

    with stream, cupy.cuda.using_allocator(pool.malloc):
        logits, labels = cupy.asarray(first), cupy.asarray(np.arange(33) % 37)
        run()
        stream.begin_capture()
        try:
            captured = run()
        finally:
            graph = stream.end_capture()
        logits[...] = cupy.asarray(second)
        graph.launch(stream)
        stream.synchronize()
        replayed = [a.get().tobytes() for a in captured]
        assert replayed == [a.get().tobytes() for a in run()]


def test_an_array_of_bfloat16_has_the_name_that_the_kernels_know(cupy_backend: Any) -> None:
    host = np.arange(6).reshape(2, 3).astype(BFLOAT16)
    a = cupy_backend.asarray(host)
    empty = cupy_backend.xp.empty((2, 3), dtype=a.dtype)
    assert (a.dtype.name, empty.dtype.name, a.dtype.isnative, a.dtype.itemsize) == ("bfloat16", "bfloat16", True, 2)
    np.testing.assert_array_equal(cupy_backend.to_numpy(a), host)


def test_bfloat16_of_torch_enters_without_a_copy(cupy_backend: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA device")
    tensor = torch.arange(6, device="cuda", dtype=torch.bfloat16)
    a = cupy_backend.asarray(tensor)
    assert (a.dtype.name, a.data.ptr) == ("bfloat16", tensor.data_ptr())
    np.testing.assert_array_equal(cupy_backend.to_numpy(a), np.arange(6).astype(BFLOAT16))
