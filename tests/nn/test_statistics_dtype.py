"""Running statistics in float64 for narrower data, in the functions and in `BatchNorm`."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
MASK = np.random.default_rng(5).random((9, 3)) > 0.3


def random(*shape: int, dtype: Any = "float32", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask": {"mask": MASK},
    "ghost": {"ghost": 3},
    "reduce": {"reduce": lambda a: a * 1.0},
    "renorm": {"renorm": (3, 5)},
    "in place": {"in_place": True},
    "residual and relu": {"residual": random(9, 3, seed=3), "activation": "relu"},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_float64_running_arrays_move_in_float64_whatever_the_data(option: str, backend: Backend) -> None:
    given = {k: backend.asarray(v.copy()) if isinstance(v, np.ndarray) else v for k, v in OPTIONS[option].items()}
    x, (mean, var) = random(9, 3), (np.array([0.1, -0.2, 0.3]), np.array([1.5, 0.7, 1.1]))
    there = [backend.asarray(a.copy()) for a in (mean, var)]
    narrow = [backend.asarray(a.astype(np.float32)) for a in (mean, var)]
    data = [backend.asarray(x.copy()) for _ in range(2)]
    gamma, beta = backend.asarray(random(3, seed=1) ** 2 + 1), backend.asarray(random(3, seed=2))
    y, cache = bnkit.batch_norm(data[0], gamma, beta, *there, train=True, **given)
    want, want_cache = bnkit.batch_norm(data[1], gamma, beta, *narrow, train=True, **given)
    parts = np.split(x.astype(float), 3) if option == "ghost" else [x.astype(float)]
    counted = MASK if option == "mask" else np.ones((len(parts[0]), 3), bool)
    means = [np.mean(p, axis=0, where=counted) for p in parts]
    variances = [np.var(p, axis=0, where=counted, ddof=1) for p in parts]
    for got, old, new in zip(there, (mean, var), (means, variances), strict=True):
        # float64, but for the kernels' float32 lanes over 9 rows, whose sums are off by some 1e-7 of the values
        np.testing.assert_allclose(backend.to_numpy(got), 0.9 * old + 0.1 * np.mean(new, axis=0), rtol=1e-7)
        assert backend.to_numpy(got).dtype == np.float64
    pairs = [(y, want), *zip(bnkit.batch_norm_backward(y, cache), bnkit.batch_norm_backward(want, want_cache))]
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:  # the same op; in renorm by statistics of which the others are a rounding to float32
            np.testing.assert_allclose(backend.to_numpy(a), backend.to_numpy(b), rtol=2e-6, atol=2e-6)


def test_inference_reads_every_digit_of_them(backend: Backend) -> None:
    x = np.full((4, 1), 16777216, np.float32)  # 2**24, where float32 has no odd numbers
    mean, var = np.array([16777215.0]), np.array([1.0])
    y, cache = bnkit.batch_norm(
        backend.asarray(x), None, None, backend.asarray(mean), backend.asarray(var), train=False
    )
    # 1 / sqrt(1 + 1e-5), rounded to float32
    np.testing.assert_allclose(backend.to_numpy(y), np.full((4, 1), 1 / np.sqrt(1 + 1e-5)), rtol=1e-7)
    dx = bnkit.batch_norm_backward(backend.asarray(x / x), cache).dx
    np.testing.assert_allclose(backend.to_numpy(dx), np.full((4, 1), 1 / np.sqrt(1 + 1e-5)), rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_data_take_them_too(dtype: Any) -> None:
    x, mean, var = random(9, 3, dtype=dtype), np.zeros(3), np.ones(3)
    bnkit.batch_norm(x, None, None, mean, var, train=True)
    np.testing.assert_allclose(mean, 0.1 * x.astype(float).mean(axis=0), rtol=1e-12)
    y, _ = bnkit.batch_norm(x, None, None, mean, var, train=False)
    assert y.dtype == x.dtype


def test_running_arrays_of_any_strides_are_moved_in_place() -> None:
    mean, var = np.zeros((3, 2)), np.ones((3, 2))
    bnkit.batch_norm(random(9, 3), None, None, mean[:, 0], var[:, 1], train=True)
    want = [np.zeros(3), np.ones(3)]
    bnkit.batch_norm(random(9, 3), None, None, *want, train=True)
    np.testing.assert_array_equal([mean[:, 0], var[:, 1]], want)
    np.testing.assert_array_equal([mean[:, 1], var[:, 0]], [np.zeros(3), np.ones(3)])


def test_running_arrays_of_two_dtypes_or_of_too_few_digits_are_refused(backend: Backend) -> None:
    x, wide, narrow = backend.asarray(random(9, 3)), backend.asarray(np.ones(3)), backend.asarray(random(3))
    for pair in ((wide, narrow), (narrow, wide)):
        with pytest.raises(TypeError, match="running_mean and running_var must have one dtype, got float"):
            bnkit.batch_norm(x, None, None, *pair, train=True)
    with pytest.raises(TypeError, match="running_mean must be float64 for float64 x, got float32"):
        bnkit.batch_norm(backend.asarray(random(9, 3, dtype="float64")), None, None, narrow, narrow, train=True)
    whole = backend.asarray(np.ones(3, np.int64))
    with pytest.raises(TypeError, match="running_mean must be float32 or float64 for float32 x, got int64"):
        bnkit.batch_norm(x, None, None, whole, whole, train=True)
    with pytest.raises(TypeError, match="gamma must be float32 for float32 x, got float64"):
        bnkit.batch_norm(x, wide, None, train=True)


def test_a_cumulative_average_of_many_batches_keeps_its_digits(backend: Backend) -> None:
    layer = bnkit.BatchNorm(1, decay=None, correction=0, statistics_dtype="float64", backend=backend)
    steps = 500
    for i in range(steps):
        x = np.full((2, 1), 1 + i % 3, np.float32) + np.float32([[1000], [1001]])
        layer.forward(backend.asarray(x), train=True)
    want = np.mean([1001.5 + i % 3 for i in range(steps)])
    # each of 500 steps rounds to float64; float32 would be off by some 1e-5 a step
    np.testing.assert_allclose(backend.to_numpy(layer.state["running_mean"]), [want], rtol=1e-13)


def test_a_layer_says_the_dtype_of_its_statistics() -> None:
    layer = bnkit.BatchNorm(3, dtype="float16", statistics_dtype=np.float64, backend="numpy")
    assert [a.dtype.name for a in (*layer.params.values(), *layer.state.values())] == [
        *("float32", "float32"),
        *("float64", "float64", "int64"),
    ]
    with pytest.raises(ValueError, match="statistics_dtype must be one of float64, got 'float32'"):
        bnkit.BatchNorm(3, dtype="float64", statistics_dtype="float32", backend="numpy")
    with pytest.raises(ValueError, match="statistics_dtype must be one of float32, float64, got 'float16'"):
        bnkit.BatchNorm(3, statistics_dtype="float16", backend="numpy")


def test_a_network_keeps_them_in_its_file(tmp_path: Any, backend: Backend) -> None:
    net = bnkit.MLP((6, 5, 3), batch_norm={"statistics_dtype": "float64"}, backend=backend)
    net.loss_and_grads(random(8, 6), np.zeros(8, np.int64))
    net.save(tmp_path / "net.npz")
    other = bnkit.MLP.load(tmp_path / "net.npz", backend=backend)
    pair = [backend.to_numpy(a.state["1.running_mean"]) for a in (net, other)]
    assert pair[1].dtype == np.float64
    np.testing.assert_array_equal(*pair)
