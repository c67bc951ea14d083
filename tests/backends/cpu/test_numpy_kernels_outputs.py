"""Where results are written: all of `out` and nothing beside it, at any size, and whatever the memory held before.

Results of tens of megabytes may be written past the cache, in whole lines: their ends, and the ends of their runs, are
what these tests are after.
"""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_memory import Memory, is_untouched_around, place, place_nan
from kernel_workload import all_results, child_checksums

import bnkit
from bnkit.reference import BackwardArguments, InferenceArguments, TrainArguments

Array = np.ndarray[Any, Any]
SHAPES = {  # of more than 40 MB in float32, none a multiple of a vector
    "columns": (1, 3001, 3701, 1),
    "few columns": (1, 1_600_003, 7, 1),
    "images": (1, 17, 61, 104 * 103),
    "long runs": (1, 3, 3, 1_200_007),
    "groups": (3, 1201, 3, 1029),
    "short runs": (1, 53, 4001, 53),
    "groups of short runs": (3, 1201, 57, 57),
}


def parts(shape: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """Channels of a group, a few at a time, so that the formulas in float64 need little memory."""
    few = max(2_000_000 // (shape[1] * shape[3]), 1)
    for group in range(shape[0]):
        for c in range(0, shape[2], few):
            yield group, slice(c, c + few)


def assert_close(name: str, got: Array, want: Array, lost: float) -> None:
    """`want` is float64; `lost`: its absolute error where it is below 8."""
    worst = np.abs(got - want).max()
    assert worst <= lost, f"{name} is off by {worst:.3g}"  # also where that is NaN


class Big:
    """A tensor and its formulas, in float64, a few channels at a time."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, offset: int) -> None:
        rng = np.random.default_rng(3)
        self.memory = Memory((0, 1, 2, 3), (1, 1, 1, 1), offset * np.dtype(dtype).itemsize)
        small = (shape[0], shape[2])
        self.x, self.dy = (rng.standard_normal(shape, np.float32).astype(dtype) for _ in range(2))
        stored = np.float64 if dtype == "float64" else np.float32
        self.gamma, self.beta = (rng.uniform(0.5, 1, small).astype(stored) for _ in range(2))
        # Values below 8 after a few roundings of float32, or one of float16.
        self.lost = {"float64": 1e-11, "float32": 4e-6, "float16": 3e-3}[np.dtype(dtype).name]

    def check(self, y: Array | None, dx: Array | None, train: bool, residual: Array | None = None) -> None:
        """y, with a residual through a ReLU, and the dx of a training that had neither."""
        for group, some in parts(self.x.shape):
            x, dy = (a[group, :, some].astype(float) for a in (self.x, self.dy))
            gamma, beta = (a[group, some, None].astype(float) for a in (self.gamma, self.beta))
            mean, var = x.mean(axis=(0, 2))[:, None], x.var(axis=(0, 2))[:, None]
            if not train:
                mean, var = 0 * mean, 0 * var + 1
            rstd = 1 / np.sqrt(var + 1e-5)
            x_hat = (x - mean) * rstd
            before = gamma * x_hat + beta
            if residual is not None:
                before = np.maximum(before + residual[group, :, some], 0)
            if y is not None:
                assert_close("y", y[group, :, some], before, self.lost)
            if dx is not None:
                through = dy.mean(axis=(0, 2))[:, None] + x_hat * (dy * x_hat).mean(axis=(0, 2))[:, None]
                assert_close("dx", dx[group, :, some], gamma * rstd * (dy - through), self.lost)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "offset"),
    [
        ("columns", "float32", 1),
        ("few columns", "float32", 3),
        ("images", "float32", 5),
        ("long runs", "float32", 7),
        ("groups", "float32", 15),
        ("images", "float64", 1),
        ("columns", "float16", 9),
    ],
)
def test_big_results_are_written_whole_and_nothing_beside_them(name: str, dtype: str, offset: int) -> None:
    big, backend = Big(SHAPES[name], dtype, offset), bnkit.get_backend("numpy")
    x, gamma, beta = big.x, big.gamma, big.beta
    mean, var = np.zeros_like(gamma), np.ones_like(gamma)
    out = place_nan(x, big.memory)
    made = backend.batch_norm_train(TrainArguments(x, gamma, beta, None, None, 0.9, 1e-5, 1, out=out.array))
    back = BackwardArguments(big.dy, x, gamma, beta, made.moments.mean, made.rstd, True, made.moments.count)
    big.check(made.y, None, train=True)
    assert made.y is out.array
    assert is_untouched_around(out)
    out.buffer.fill(0xFF)
    backend.batch_norm_backward(back._replace(out=out.array))
    big.check(None, out.array, train=True)
    assert is_untouched_around(out)
    over = place(big.dy, big.memory)
    backend.batch_norm_backward(back._replace(dy=over.array, out=over.array))
    assert over.array.tobytes() == out.array.tobytes()
    assert is_untouched_around(over)
    out.buffer.fill(0xFF)
    inference = InferenceArguments(x, gamma, beta, mean, var, eps=1e-5, out=out.array)
    backend.batch_norm_inference(inference)
    big.check(out.array, None, train=False)
    assert is_untouched_around(out)
    over = place(x, big.memory)
    backend.batch_norm_inference(inference._replace(x=over.array, out=over.array))
    assert over.array.tobytes() == out.array.tobytes()
    assert is_untouched_around(over)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["columns", "images"])
def test_big_residuals_are_added_and_given_their_gradient(name: str) -> None:
    big, backend = Big(SHAPES[name], "float32", 3), bnkit.get_backend("numpy")
    residual = place(big.dy[..., ::-1, :], big.memory).array
    out = place_nan(big.x, big.memory)
    arrays = (big.x, big.gamma, big.beta)
    made = backend.batch_norm_train(
        TrainArguments(*arrays, None, None, 0.9, 1e-5, 1, None, residual, activation="relu", out=out.array)
    )
    big.check(made.y, None, train=True, residual=residual)
    assert is_untouched_around(out)
    upstream = np.where(made.y > 0, big.dy, 0)
    out.buffer.fill(0xFF)
    given = (big.dy, *arrays, made.moments.mean, made.rstd, True, made.moments.count)
    grads = backend.batch_norm_backward(
        BackwardArguments(*given, activation="relu", active=made.active, residual=True, out=out.array)
    )
    np.testing.assert_array_equal(grads.dresidual, upstream)
    big.dy = upstream
    big.check(None, grads.dx, train=True)
    assert is_untouched_around(out)


def test_results_do_not_depend_on_what_the_memory_held() -> None:
    """glibc fills what malloc gives with a byte; elsewhere this asks for the same bits three times."""
    plain, *poisoned = child_checksums(*({"MALLOC_PERTURB_": str(byte)} for byte in (0, 1, 85)))
    assert poisoned == [plain, plain]


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
def test_nan_in_memory_just_freed_does_not_come_back(dtype: Any) -> None:
    shape = (2, 37, 29, 11)
    want = {k: a.tobytes() for k, a in all_results(shape, dtype).items()}
    for value in (np.nan, np.inf, 7.0):
        freed = [np.full(n, value) for n in (*(2**k for k in range(3, 16)), int(np.prod(shape))) for _ in range(4)]
        del freed
        assert {k: a.tobytes() for k, a in all_results(shape, dtype).items()} == want
