"""Mask, ghost batches, decay, correction and replicas, on every backend."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import textbook

import bnkit
from bnkit.backend import Backend
from bnkit_numpy import NumpyBackend

Host = np.ndarray[Any, Any]
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}  # values below 8, rounded to float32 once or twice
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}  # float64: a few roundings


def random(*shape: int, dtype: str = "float64", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


def parameters(*shape: int, dtype: str = "float64") -> list[Host]:
    """gamma, beta, running_mean, running_var"""
    rng = np.random.default_rng(shape)
    return [rng.uniform(low, 2, shape).astype(dtype) for low in (-2, -1, -1, 0.5)]


def agrees(backend: Backend, x: Host, small: list[Host], **options: Any) -> None:
    """Forward, running arrays and gradients are the textbook's; array options are host arrays."""
    dy = random(*x.shape, seed=9)
    want = textbook.forward(x, *small, **options)
    gradients = textbook.backward(dy, x, *small, **options)
    there = [backend.asarray(a.copy()) for a in small]
    moved = {k: backend.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    moved.setdefault("train", True)
    y, cache = bnkit.batch_norm(backend.asarray(x), *there, **moved)
    grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    for got, wanted in zip((y, *there[2:], *grads[:3]), (*want, *gradients[:3]), strict=True):
        np.testing.assert_allclose(backend.to_numpy(got), wanted.astype(float), **EXACT)


@pytest.mark.parametrize("shape", [(7, 4, 3), (7, 1, 1), (7, 1, 3), (1, 4, 1), (1, 1, 1)], ids=str)
def test_the_mask_broadcasts_to_x(shape: tuple[int, ...], backend: Backend) -> None:
    agrees(backend, random(7, 4, 3), parameters(4), mask=random(*shape, seed=1) > 0)


def test_the_mask_may_be_exactly_the_batch_axis(backend: Backend) -> None:
    mask = random(7, seed=1) > 0
    x, small = random(7, 7, 3), parameters(7)  # as many channels as rows: the mask is of the rows
    want = textbook.forward(x, *small, mask=mask[:, None, None])
    y, _ = bnkit.batch_norm(
        backend.asarray(x), *(backend.asarray(a) for a in small), train=True, mask=backend.asarray(mask)
    )
    np.testing.assert_allclose(backend.to_numpy(y), want.y.astype(float), **EXACT)


def test_the_batch_axis_of_replicas_is_the_second(backend: Backend) -> None:
    x, small, mask = random(2, 7, 4), parameters(2, 4), random(7, seed=1) > 0
    want = textbook.forward(x, *small, axis=(0, 2), mask=mask[:, None])
    there = [backend.asarray(a) for a in small]
    y, _ = bnkit.batch_norm(backend.asarray(x), *there, train=True, axis=(0, 2), mask=backend.asarray(mask))
    np.testing.assert_allclose(backend.to_numpy(y), want.y.astype(float), **EXACT)


def test_a_mask_of_a_leading_axis_of_another_length_is_refused(backend: Backend) -> None:
    for shape in ((4,), (3,), (7, 4), (7, 2, 3), (1, 7, 4, 3), ()):
        mask = backend.asarray(np.ones(shape, bool))
        with pytest.raises(ValueError, match="mask"):
            bnkit.batch_norm(backend.asarray(random(7, 4, 3)), None, None, train=True, mask=mask)


@pytest.mark.parametrize("hidden", [1.0, np.nan, np.inf])
@pytest.mark.parametrize("reduce", [None, lambda a: a], ids=["alone", "with reduce"])
def test_a_wholly_masked_channel_gives_beta_and_moves_nothing(
    hidden: float, reduce: Callable[[Any], Any] | None, backend: Backend
) -> None:
    x, mask, small = random(7, 4), random(7, 4, seed=1) > 0, parameters(4)
    x[2, 1], mask[:, 1] = hidden, False
    mask[:, 2], mask[0, 2] = False, True  # one element: too few for a variance
    there = [backend.asarray(a.copy()) for a in small]
    y, cache = bnkit.batch_norm(backend.asarray(x), *there, train=True, mask=backend.asarray(mask), reduce=reduce)
    grads = bnkit.batch_norm_backward(backend.asarray(random(7, 4, seed=2)), cache)
    np.testing.assert_array_equal(backend.to_numpy(y)[:, 1], np.full(7, small[1][1]))
    np.testing.assert_array_equal(backend.to_numpy(grads.dx)[:, 1], np.zeros(7))
    mean, var = (backend.to_numpy(a) for a in there[2:])
    assert (mean[1], var[1], var[2]) == (small[2][1], small[3][1], small[3][2])
    assert mean[2] != small[2][2]
    assert np.isfinite(backend.to_numpy(y)).all()


@pytest.mark.parametrize("hidden", [np.nan, np.inf])
def test_a_ghost_batch_that_the_mask_hides_wholly_gives_beta_and_keeps_out_of_the_mean(
    hidden: float, backend: Backend
) -> None:
    x, mask, small = random(9, 4), random(9, 4, seed=1) > -2, parameters(4)
    x[3:6, 1], mask[3:6, 1] = hidden, False
    x[:, 2], mask[:, 2] = hidden, False
    residual, dy = random(9, 4, seed=3), np.where(mask, random(9, 4, seed=2), 0)
    results = []
    for data in (x, np.where(x == x, np.clip(x, -100, 100), 0.5)):
        there = [backend.asarray(a.copy()) for a in small]
        options = {"mask": backend.asarray(mask), "residual": backend.asarray(residual), "activation": "relu"}
        y, cache = bnkit.batch_norm(backend.asarray(data), *there, train=True, ghost=3, **options)
        grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
        results.append([backend.to_numpy(a) for a in (y, *there[2:], *grads)])
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)
    y, mean, var = results[0][:3]
    np.testing.assert_array_equal(y[:, 2], np.maximum(small[1][2] + residual[:, 2], 0))
    np.testing.assert_array_equal(y[3:6, 1], np.maximum(small[1][1] + residual[3:6, 1], 0))
    assert (mean[2], var[2]) == (small[2][2], small[3][2])
    part_means = [np.mean(x[rows, 1], where=mask[rows, 1]) for rows in (slice(0, 3), slice(6, 9))]
    np.testing.assert_allclose(mean[1], 0.9 * small[2][1] + 0.1 * np.mean(part_means), **EXACT)


def test_nan_under_the_mask_spoils_neither_statistics_nor_gradients(backend: Backend) -> None:
    x, small = random(7, 4), parameters(4)
    mask = random(7, 4, seed=1) > 0
    dy = np.where(mask, random(7, 4, seed=2), 0)  # a masked loss
    results = []
    for hidden in (0.5, np.nan):
        there = [backend.asarray(a.copy()) for a in small]
        spoiled = backend.asarray(np.where(mask, x, hidden))
        y, cache = bnkit.batch_norm(spoiled, *there, train=True, mask=backend.asarray(mask), activation="relu")
        grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
        results.append([backend.to_numpy(a) for a in (*there[2:], *grads[1:3])])
        results[-1] += [backend.to_numpy(a)[mask] for a in (y, grads.dx)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mask_is_ignored_in_inference(backend: Backend) -> None:
    x, small = backend.asarray(random(7, 4)), [backend.asarray(a) for a in parameters(4)]
    mask = backend.asarray(random(7, 4, seed=1) > 0)
    y, _ = bnkit.batch_norm(x, *small, train=False, mask=mask)
    want, _ = bnkit.batch_norm(x, *small, train=False)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(want))


@pytest.mark.parametrize("ghost", [2, 3, 4, 7, 8])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 3), 1), ((9, 3), 1), ((8, 3, 2, 2), 1), ((9, 2, 2, 3), -1), ((2, 9, 3), (0, 2)), ((9, 3, 2), (1, 2))],
    ids=str,
)
def test_each_ghost_batch_and_the_remainder_have_their_own_statistics(
    shape: tuple[int, ...], axis: Any, ghost: int, backend: Backend
) -> None:
    axes = axis if isinstance(axis, tuple) else (axis,)
    small = parameters(*(shape[a] for a in axes))
    agrees(backend, random(*shape), small, ghost=ghost, axis=axis, correction=0)
    for correction in (0, 1):  # under a mask, a part with one element keeps out of the mean of the variances
        mask = random(*shape, seed=1) > 0.5
        agrees(backend, random(*shape), small, ghost=ghost, axis=axis, correction=correction, mask=mask)


def test_the_running_arrays_move_once_by_the_mean_over_the_ghost_batches() -> None:
    x = random(10, 3)
    mean, var = np.zeros(3), np.ones(3)
    bnkit.batch_norm(x, None, None, mean, var, train=True, ghost=4, decay=0.75)
    parts = (x[:4], x[4:8], x[8:])
    np.testing.assert_allclose(mean, 0.25 * np.mean([p.mean(axis=0) for p in parts], axis=0), **EXACT)
    expected = 0.75 + 0.25 * np.mean([p.var(axis=0, ddof=1) for p in parts], axis=0)
    np.testing.assert_allclose(var, expected, **EXACT)


@pytest.mark.parametrize("ghost", [8, 9, 10**6])
def test_a_ghost_batch_no_smaller_than_the_batch_is_plain_batch_norm(ghost: int, backend: Backend) -> None:
    x, results = backend.asarray(random(8, 3)), []
    for size in (ghost, None):
        small = [backend.asarray(a.copy()) for a in parameters(3)]
        y, cache = bnkit.batch_norm(x, *small, train=True, ghost=size)
        results.append([backend.to_numpy(a) for a in (y, *small, *bnkit.batch_norm_backward(x, cache)[:3])])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ghost_is_ignored_in_inference(backend: Backend) -> None:
    x, small = backend.asarray(random(7, 4)), [backend.asarray(a) for a in parameters(4)]
    y, want = (bnkit.batch_norm(x, *small, train=False, ghost=size)[0] for size in (2, None))
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(want))


def test_a_remainder_too_small_for_a_variance_is_refused_only_where_it_is_wanted(backend: Backend) -> None:
    x = backend.asarray(random(9, 3))
    small = [backend.asarray(a) for a in parameters(3)]
    with pytest.raises(ValueError, match="ghost batch"):
        bnkit.batch_norm(x, *small, train=True, ghost=4)
    for a, b in zip(small, parameters(3), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), b)
    bnkit.batch_norm(x, *small[:2], train=True, ghost=4)
    bnkit.batch_norm(x, *small, train=True, ghost=4, correction=0)


@pytest.mark.parametrize("decay", [0.9, 0.0, 1.0, 0, 1, -1.2, 2.5, np.float32(0.5), np.float64(0.25)], ids=str)
@pytest.mark.parametrize("correction", [0, 1])
def test_decay_is_any_finite_number_and_weighs_the_old_value(decay: Any, correction: int, backend: Backend) -> None:
    x, (_, _, mean, var) = random(7, 4, dtype="float32"), parameters(4, dtype="float32")
    there = [backend.asarray(a.copy()) for a in (mean, var)]
    bnkit.batch_norm(backend.asarray(x), None, None, *there, train=True, decay=decay, correction=correction)
    wide, d = x.astype(float), float(decay)
    np.testing.assert_allclose(backend.to_numpy(there[0]), d * mean + (1 - d) * wide.mean(axis=0), **CLOSE)
    expected = d * var + (1 - d) * wide.var(axis=0, ddof=correction)
    np.testing.assert_allclose(backend.to_numpy(there[1]), expected, **CLOSE)


def test_no_decay_in_the_function_is_refused_by_the_name_of_the_layer_that_has_it() -> None:
    x, (_, _, mean, var) = random(7, 4), parameters(4)
    with pytest.raises(ValueError, match="BatchNorm"):
        bnkit.batch_norm(x, None, None, mean, var, train=True, decay=None)  # type: ignore[arg-type]


def test_one_element_a_channel_is_refused_only_where_a_running_variance_would_move(backend: Backend) -> None:
    x, small = backend.asarray(random(1, 4)), [backend.asarray(a) for a in parameters(4)]
    with pytest.raises(ValueError, match="element"):
        bnkit.batch_norm(x, *small, train=True)
    y, _ = bnkit.batch_norm(x, *small[:2], train=True)
    np.testing.assert_array_equal(backend.to_numpy(y), parameters(4)[1][None])
    bnkit.batch_norm(x, *small, train=True, correction=0)
    bnkit.batch_norm(x, *small, train=False)
    bnkit.batch_norm(backend.asarray(random(1, 4, 2)), *small, train=True)


def test_replicas_are_each_what_one_alone_is(backend: Backend) -> None:
    x, dy, small = random(3, 7, 4), random(3, 7, 4, seed=1), parameters(3, 4)
    there = [backend.asarray(a.copy()) for a in small]
    y, cache = bnkit.batch_norm(backend.asarray(x), *there, train=True, axis=(0, 2))
    grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    for r in range(3):
        own = [backend.asarray(a[r].copy()) for a in small]
        y_own, cache_own = bnkit.batch_norm(backend.asarray(x[r]), *own, train=True)
        grads_own = bnkit.batch_norm_backward(backend.asarray(dy[r]), cache_own)
        pairs = [(y, y_own), *zip(grads[:3], grads_own[:3], strict=True), *zip(there, own, strict=True)]
        for together, alone in pairs:
            np.testing.assert_allclose(backend.to_numpy(together)[r], backend.to_numpy(alone), **EXACT)


def test_every_op_is_given_contiguous_aligned_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def watch(name: str) -> None:
        real = getattr(NumpyBackend, name)

        def watched(self: Any, args: Any) -> Any:
            seen.extend(a for a in args if isinstance(a, np.ndarray))
            return real(self, args)

        monkeypatch.setattr(NumpyBackend, name, watched)

    for name in ("batch_norm_train", "batch_norm_inference", "batch_norm_backward"):
        watch(name)
    rng = np.random.default_rng(0)
    odd = np.frombuffer(b"\0" + rng.normal(size=42).astype(np.float32).tobytes(), np.uint8)[1:].view(np.float32)
    strided = [rng.normal(size=(12,)).astype(np.float32)[::2] for _ in range(2)]
    gamma, beta = strided
    mean, var = (np.abs(rng.normal(size=(6, 2))).astype(np.float32)[:, 0] for _ in range(2))
    for x in (odd.reshape(7, 6), rng.normal(size=(14, 12)).astype(np.float32)[::2, ::-2], odd.reshape(6, 7).T):
        for train in (True, False):
            y, cache = bnkit.batch_norm(x, gamma, beta, mean, var, train=train, residual=x * 2)
            bnkit.batch_norm_backward(y[::-1], cache)
    assert len(seen) > 20
    assert all(a.flags.c_contiguous and a.flags.aligned for a in seen)
