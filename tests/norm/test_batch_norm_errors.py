"""What is refused, as which error, and that nothing was written before it was."""

import re
from typing import Any

import numpy as np
import pytest
from cuda_host.device_array import DeviceArray
from usable_backends import usable

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]


def random(*shape: int, dtype: str = "float32", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


GOOD: dict[str, Host] = {
    "x": random(7, 5),
    "gamma": random(5, seed=1),
    "beta": random(5, seed=2),
    "running_mean": random(5, seed=3),
    "running_var": random(5, seed=4) ** 2,
    "residual": random(7, 5, seed=5),
    "mask": random(7, 5, seed=6) > 0,
    "out": random(7, 5, seed=7),
}
TYPE: dict[str, dict[str, Any]] = {
    "x of int64": {"x": random(7, 5).astype(np.int64)},
    "x of bool": {"x": random(7, 5) > 0},
    "x a list": {"x": [[1.0]]},
    "x a number": {"x": 1.0},
    "x None": {"x": None},
    "gamma of float64": {"gamma": random(5, dtype="float64")},
    "beta of float64": {"beta": random(5, dtype="float64")},
    "gamma a number": {"gamma": 1.0},
    "running_mean of float64": {"running_mean": random(5, dtype="float64")},
    "running_var of float64": {"running_var": random(5, dtype="float64")},
    "float32 parameters for float64 x": {"x": random(7, 5, dtype="float64"), "residual": None, "out": None},
    "residual of float64": {"residual": random(7, 5, dtype="float64")},
    "mask of float32": {"mask": random(7, 5)},
    "mask of int64": {"mask": (random(7, 5) > 0).astype(np.int64)},
    "mask a list": {"mask": [True] * 7},
    "out of float64": {"out": random(7, 5, dtype="float64")},
    "out a list": {"out": []},
    "axis a string": {"axis": "1"},
    "axis None": {"axis": None},
    "decay a string": {"decay": "0.9"},
    "eps a string": {"eps": "1e-5"},
    "eps None": {"eps": None},
    "ghost a float": {"ghost": 2.0},
    "ghost a bool": {"ghost": True},
    "train None": {"train": None},
    "train an int": {"train": 1},
    "reduce a number": {"reduce": 3},
}
VALUE: dict[str, dict[str, Any]] = {
    "axis too large": {"axis": 2},
    "axis too small": {"axis": -3},
    "axis twice": {"axis": (1, 1)},
    "gamma of another length": {"gamma": random(4)},
    "gamma of another rank": {"gamma": random(1, 5)},
    "beta of another length": {"beta": random(7)},
    "running_mean of another length": {"running_mean": random(6)},
    "running_var of another length": {"running_var": random(6)},
    "running_mean alone": {"running_var": None},
    "running_var alone": {"running_mean": None},
    "residual of another shape": {"residual": random(7, 4)},
    "residual to broadcast": {"residual": random(1, 5)},
    "mask of another shape": {"mask": random(6, 5) > 0},
    "mask of the channels": {"mask": random(5) > 0},
    "out of another shape": {"out": random(5, 7)},
    "decay NaN": {"decay": float("nan")},
    "decay infinite": {"decay": float("inf")},
    "decay None": {"decay": None},
    "eps negative": {"eps": -1e-5},
    "eps NaN": {"eps": float("nan")},
    "eps infinite": {"eps": float("inf")},
    "correction 2": {"correction": 2},
    "correction -1": {"correction": -1},
    "an unknown activation": {"activation": "tanh"},
    "ghost 0": {"ghost": 0},
    "ghost negative": {"ghost": -2},
    "ghost and reduce": {"ghost": 2, "reduce": lambda a: a},
    "no statistics in inference": {"train": False, "running_mean": None, "running_var": None},
}


def refused(backend: Backend, error: type[Exception], changes: dict[str, Any]) -> str:
    """The message; fails unless the call raises `error` and leaves every array as it was."""
    call = {name: backend.asarray(a.copy()) for name, a in GOOD.items()}
    call |= {name: backend.asarray(a.copy()) if isinstance(a, np.ndarray) else a for name, a in changes.items()}
    before = {n: backend.to_numpy(a).copy() for n, a in call.items() if n in GOOD and hasattr(a, "dtype")}
    train = call.pop("train", True)
    x, gamma, beta, mean, var = (call.pop(n) for n in ("x", "gamma", "beta", "running_mean", "running_var"))
    given = {"x": x, "gamma": gamma, "beta": beta, "running_mean": mean, "running_var": var, **call}
    with pytest.raises(error) as caught:
        bnkit.batch_norm(x, gamma, beta, mean, var, train=train, **call)
    for name, array in before.items():
        np.testing.assert_array_equal(backend.to_numpy(given[name]), array, err_msg=f"{name} was written")
    return str(caught.value)


@pytest.mark.parametrize("case", TYPE)
def test_a_wrong_type_or_dtype_is_a_type_error_and_nothing_is_written(case: str, backend: Backend) -> None:
    assert refused(backend, TypeError, TYPE[case])


@pytest.mark.parametrize("case", VALUE)
def test_a_wrong_shape_or_value_is_a_value_error_and_nothing_is_written(case: str, backend: Backend) -> None:
    assert refused(backend, ValueError, VALUE[case])


def test_a_message_names_the_argument_what_it_must_be_and_what_it_was(backend: Backend) -> None:
    message = refused(backend, ValueError, VALUE["gamma of another length"])
    assert all(part in message for part in ("gamma", "(5,)", "(4,)"))
    message = refused(backend, TypeError, TYPE["running_mean of float64"])
    assert all(part in message for part in ("running_mean", "float32", "float64"))


@pytest.mark.parametrize("name", [n for n in GOOD if n != "x"])
def test_arrays_of_another_backend_are_a_type_error_and_nothing_is_moved(name: str, backend: Backend) -> None:
    if backend.name == "numpy":
        other = bnkit.get_backend("strict")
    else:
        other = bnkit.get_backend("numpy")
    call: dict[str, Any] = {n: (other if n == name else backend).asarray(a.copy()) for n, a in GOOD.items()}
    arrays = [call.pop(n) for n in ("x", "gamma", "beta", "running_mean", "running_var")]
    with pytest.raises(TypeError, match=rf"^x and {name} must be of one backend, got .*; move one by backend\.asarray"):
        bnkit.batch_norm(*arrays, train=True, **call)


def test_the_gradient_must_be_of_the_backend_of_x(backend: Backend) -> None:
    other = bnkit.get_backend("strict" if backend.name == "numpy" else "numpy")
    x = backend.asarray(GOOD["x"])
    _, cache = bnkit.batch_norm(x, None, None, train=True)
    with pytest.raises(TypeError, match="backend"):
        bnkit.batch_norm_backward(other.asarray(GOOD["x"]), cache)
    with pytest.raises(TypeError, match="backend"):
        bnkit.batch_norm_backward(x, cache, out=other.asarray(GOOD["x"]))


def test_a_wrong_gradient_out_or_cache_is_refused_in_backward(backend: Backend) -> None:
    x = backend.asarray(GOOD["x"])
    _, cache = bnkit.batch_norm(x, None, None, train=True)

    def there(a: Host) -> Any:
        return backend.asarray(a.copy())

    out = there(GOOD["out"])
    for dy, kwargs, error in (
        (there(random(5, 7)), {}, ValueError),
        (there(random(7, 5, dtype="float64")), {}, TypeError),
        (None, {"out": out}, TypeError),
        ([[1.0]], {"out": out}, TypeError),
        (there(random(7, 5)), {"out": there(random(5, 7))}, ValueError),
        (there(random(7, 5)), {"out": there(random(7, 5, dtype="float64"))}, TypeError),
    ):
        with pytest.raises(error):
            bnkit.batch_norm_backward(dy, cache, **kwargs)  # type: ignore[arg-type]
        np.testing.assert_array_equal(backend.to_numpy(out), GOOD["out"])
    for wrong in (None, x, (x, cache)):
        with pytest.raises(TypeError, match="cache"):
            bnkit.batch_norm_backward(x, wrong)  # type: ignore[arg-type]


def test_out_that_overlaps_x_or_the_residual_is_refused_in_training(backend: Backend) -> None:
    x, residual = backend.asarray(random(7, 5)), backend.asarray(random(7, 5, seed=1))
    for out in (x, x[...], residual, residual[...]):
        with pytest.raises(ValueError, match="overlap"):
            bnkit.batch_norm(x, None, None, train=True, residual=residual, out=out)
    np.testing.assert_array_equal(backend.to_numpy(x), random(7, 5))


def test_out_that_overlaps_a_small_array_is_refused(backend: Backend) -> None:
    x, out = backend.asarray(random(7, 5)), backend.asarray(random(7, 5, seed=1))
    for name in ("gamma", "beta", "running_mean", "running_var"):
        small = {n: backend.asarray(GOOD[n].copy()) for n in ("gamma", "beta", "running_mean", "running_var")}
        small[name] = out[0, ...]
        with pytest.raises(ValueError, match=f"out must not overlap {name}"):
            bnkit.batch_norm(x, *small.values(), train=True, out=out)


def test_out_that_overlaps_in_part_is_refused_everywhere(backend: Backend) -> None:
    room = backend.asarray(random(9, 5))
    x, out = room[:7, :], room[2:, :]
    small = [backend.asarray(GOOD[n]) for n in ("gamma", "beta", "running_mean", "running_var")]
    for train in (True, False):
        with pytest.raises(ValueError, match="overlap"):
            bnkit.batch_norm(x, *small, train=train, out=out)
    other = backend.asarray(random(7, 5, seed=1))
    _, cache = bnkit.batch_norm(other, *small, train=True)
    with pytest.raises(ValueError, match="overlap"):
        bnkit.batch_norm_backward(x, cache, out=out)
    with pytest.raises(ValueError, match="overlap"):
        bnkit.batch_norm_backward(x, cache, out=other)


def test_running_arrays_that_overlap_x_or_each_other_are_refused(backend: Backend) -> None:
    x, mean, var = backend.asarray(random(5, 5)), backend.asarray(GOOD["running_mean"]), backend.asarray(random(5))
    for pair in ((mean, mean), (x[0, ...], var), (mean, x[1, ...])):
        with pytest.raises(ValueError, match="overlap"):
            bnkit.batch_norm(x, None, None, *pair, train=True)


def test_running_arrays_that_overlap_the_residual_or_the_mask_are_refused_in_training() -> None:
    x, residual, free = GOOD["x"], GOOD["residual"].copy(), np.ones(5, np.float32)
    before = residual.copy()
    for pair in ((residual[0], free), (free, residual[1])):
        with pytest.raises(ValueError, match=r"running_(mean|var) must not overlap residual"):
            bnkit.batch_norm(x, None, None, *pair, train=True, residual=residual)
        bnkit.batch_norm(x, None, None, *pair, train=False, residual=residual)
    np.testing.assert_array_equal(residual, before)
    with pytest.raises(ValueError, match=r"running_mean must not overlap mask"):
        bnkit.batch_norm(x, None, None, free, free.copy(), train=True, mask=free.view(bool)[: len(x)])


@pytest.mark.parametrize("name", ["running_mean", "running_var", "out"])
def test_a_read_only_array_that_would_be_written_is_refused(name: str) -> None:
    call: dict[str, Any] = {n: a.copy() for n, a in GOOD.items()}
    call[name].flags.writeable = False
    before = {n: a.copy() for n, a in call.items()}
    arrays = [call[n] for n in ("x", "gamma", "beta", "running_mean", "running_var")]
    with pytest.raises(ValueError, match=f"{name}.*read-only"):
        bnkit.batch_norm(*arrays, train=True, out=call["out"])
    for n, a in call.items():
        np.testing.assert_array_equal(a, before[n])
    dx = np.empty_like(GOOD["x"])
    dx.flags.writeable = False
    _, cache = bnkit.batch_norm(GOOD["x"], None, None, train=True)
    with pytest.raises(ValueError, match="read-only"):
        bnkit.batch_norm_backward(GOOD["residual"], cache, out=dx)


def overlapping(*shape: int) -> Host:
    """A writeable array whose rows all have the same memory."""
    memory = np.full(shape[-1] if len(shape) > 1 else 1, 3, np.float32)
    return np.lib.stride_tricks.as_strided(memory, shape, (*[0] * (len(shape) - 1), 4 if len(shape) > 1 else 0))


@pytest.mark.parametrize("name", ["running_mean", "running_var", "out"])
def test_an_array_that_overlaps_itself_is_refused_where_it_would_be_written(name: str) -> None:
    call: dict[str, Any] = {n: a.copy() for n, a in GOOD.items()}
    call[name] = overlapping(*call[name].shape)
    before = {n: a.copy() for n, a in call.items()}
    arrays = [call[n] for n in ("x", "gamma", "beta", "running_mean", "running_var")]
    with pytest.raises(ValueError, match=rf"{name} must not overlap itself in memory, got strides \(0.*pass a copy"):
        bnkit.batch_norm(*arrays, train=True, out=call["out"])
    for n, a in call.items():
        np.testing.assert_array_equal(a, before[n])


def test_an_array_that_overlaps_itself_is_read_as_any_other() -> None:
    x, gamma, dy = overlapping(7, 5), overlapping(5), overlapping(7, 5)
    y, cache = bnkit.batch_norm(x, gamma, gamma, gamma, gamma, train=False)
    expected, _ = bnkit.batch_norm(*(a.copy() for a in (x, *[gamma] * 4)), train=False)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(
        bnkit.batch_norm_backward(dy, cache).dx, bnkit.batch_norm_backward(dy.copy(), cache).dx
    )


def test_a_gradient_out_that_overlaps_itself_is_refused() -> None:
    for x in (GOOD["x"], overlapping(7, 5)):  # whose strides the second out has
        _, cache = bnkit.batch_norm(x, None, None, train=True)
        with pytest.raises(ValueError, match="out must not overlap itself"):
            bnkit.batch_norm_backward(GOOD["residual"], cache, out=overlapping(7, 5))


def test_an_array_of_a_device_that_overlaps_itself_is_refused() -> None:
    """On a device broadcast arrays can be written: no flag makes them read-only."""
    backend = usable("cuda_host")
    x, var = (backend.asarray(GOOD[n]) for n in ("x", "running_var"))
    mean = DeviceArray(overlapping(5))
    with pytest.raises(ValueError, match="running_mean must not overlap itself"):
        bnkit.batch_norm(x, None, None, mean, var, train=True)


windows = np.lib.stride_tricks.as_strided


@pytest.mark.parametrize(
    ("view", "overlaps"),
    {
        "rows that share an element": (windows(np.zeros(13, np.float32), (4, 4), (12, 4)), True),
        "elements that share bytes": (windows(np.zeros(13, np.float32), (5,), (2,)), True),
        "backwards with one address": (windows(np.zeros(13, np.float32)[4:], (3, 5), (-4, 4)), True),
        "rows that touch": (windows(np.zeros(16, np.float32), (4, 4), (16, 4)), False),
        "one element, a stride of 0": (windows(np.zeros(1, np.float32), (1, 1), (0, 0)), False),
        "no element": (windows(np.zeros(1, np.float32), (0, 4), (0, 0)), False),
        "a transpose": (np.zeros((3, 4, 5), np.float32).transpose(2, 0, 1), False),
        "reversed, with gaps": (np.zeros((9, 8), np.float32)[::-2, ::3], False),
        "an axis of one": (np.zeros((9, 1, 4), np.float32)[::2].transpose(1, 2, 0), False),
    }.values(),
)
def test_views_without_shared_memory_are_written(view: Host, overlaps: bool) -> None:
    shape = view.shape
    axis = tuple(range(1, len(shape) + 1))
    x = np.random.default_rng(0).normal(size=(7, *shape)).astype(np.float32)
    var = np.ones(shape, np.float32)
    if overlaps:
        with pytest.raises(ValueError, match="running_mean must not overlap itself"):
            bnkit.batch_norm(x, None, None, view, var, train=True, axis=axis)
        return
    bnkit.batch_norm(x, None, None, view, var, train=True, axis=axis)
    np.testing.assert_allclose(view, 0.1 * x.mean(axis=0), rtol=1e-5, atol=1e-7)  # float32


def test_out_of_another_memory_layout_is_refused() -> None:
    x = GOOD["x"]
    with pytest.raises(ValueError, match="layout"):
        bnkit.batch_norm(x, None, None, train=True, out=np.asfortranarray(GOOD["out"]))
    _, cache = bnkit.batch_norm(x, None, None, train=True)
    with pytest.raises(ValueError, match="layout"):
        bnkit.batch_norm_backward(x, cache, out=np.asfortranarray(GOOD["out"]))


def test_the_remedy_for_a_wrong_out_is_one() -> None:
    dense = np.asfortranarray(GOOD["x"])
    for x, right in ((dense, np.empty_like(dense)), (dense[::2], np.empty(dense[::2].shape, dense.dtype))):
        wrong = np.empty(x.shape[::-1], x.dtype).T if x is not dense else np.empty(x.shape, x.dtype)
        name = "empty_like" if x is dense else r"empty\(x.shape, x.dtype\)"
        with pytest.raises(ValueError, match=rf"out must .*strides .*got .*use {name}"):
            bnkit.batch_norm(x, None, None, train=True, out=wrong)
        bnkit.batch_norm(x, None, None, train=True, out=right)


def test_masked_arrays_and_matrices_are_refused() -> None:
    with pytest.raises(TypeError, match="MaskedArray"):
        bnkit.batch_norm(np.ma.masked_array(GOOD["x"]), None, None, train=True)


def test_the_remedy_for_a_masked_array_keeps_what_its_mask_means() -> None:
    a = np.ma.masked_array(random(20, 3), mask=random(20, 3) > 0.5)
    with pytest.raises(TypeError, match=re.escape("pass a.data, and to batch_norm mask=~np.ma.getmaskarray(a)")):
        bnkit.batch_norm(a, None, None, train=True)
    y, _ = bnkit.batch_norm(a.data, None, None, train=True, mask=~np.ma.getmaskarray(a))
    expected = (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-5)
    np.testing.assert_allclose(y[~a.mask], expected.compressed(), rtol=1e-5, atol=1e-6)  # float32, to a few roundings


def test_ghost_batches_need_the_batch_axis_before_the_channels() -> None:
    with pytest.raises(ValueError, match="transpose"):
        bnkit.batch_norm(random(5, 7), None, None, train=True, axis=0, ghost=2)


def test_nan_and_infinity_are_no_error_and_stay_in_their_channel(backend: Backend) -> None:
    x = random(7, 5)
    clean, cache = bnkit.batch_norm(backend.asarray(x), None, None, train=True)
    dx = bnkit.batch_norm_backward(backend.asarray(GOOD["residual"]), cache).dx
    for bad in (np.nan, np.inf, -np.inf):
        x[3, 2] = bad
        mean, var = (backend.asarray(a) for a in (np.zeros(5, np.float32), np.ones(5, np.float32)))
        y, cache = bnkit.batch_norm(backend.asarray(x), None, None, mean, var, train=True)
        grads = bnkit.batch_norm_backward(backend.asarray(GOOD["residual"]), cache)
        assert np.isnan(backend.to_numpy(y)[:, 2]).all()
        others = [0, 1, 3, 4]
        for got, want in ((y, clean), (grads.dx, dx)):
            np.testing.assert_array_equal(backend.to_numpy(got)[:, others], backend.to_numpy(want)[:, others])
        assert np.isfinite(backend.to_numpy(mean)[others]).all()
        assert not np.isfinite(backend.to_numpy(var)[2])


@pytest.mark.parametrize("name", ["x", "gamma", "mask", "residual", "out"])
def test_what_is_no_array_is_named(backend: Backend, name: str) -> None:
    arrays: dict[str, Any] = {k: backend.asarray(GOOD[k]) for k in ("x", "gamma", "beta")} | {name: [[1.0, 2.0]]}
    with pytest.raises(
        TypeError, match=rf"^{name} must be an array of one of the backends .*got list; convert it by numpy\.asarray$"
    ):
        bnkit.batch_norm(**arrays, train=True)


def test_a_foreign_byte_order_is_refused() -> None:
    x = GOOD["x"].astype(GOOD["x"].dtype.newbyteorder())
    with pytest.raises(TypeError, match="got float32 in foreign byte order; convert it"):
        bnkit.batch_norm(x, None, None, train=True)


def test_a_reduce_that_returns_nothing_is_named(backend: Backend) -> None:
    with pytest.raises(ValueError, match="reduce must return an array of shape"):
        bnkit.batch_norm(backend.asarray(GOOD["x"]), None, None, train=True, reduce=lambda a: None)


@pytest.mark.parametrize("answer", [lambda a: a.astype(complex), lambda a: a.astype(int), lambda a: memoryview(a)])
def test_a_reduce_that_returns_another_type_is_named_and_nothing_is_written(answer: Any) -> None:
    x, mean, var = GOOD["x"].copy(), np.zeros(5, np.float32), np.ones(5, np.float32)
    with pytest.raises(TypeError, match=r"reduce must return a float64 array of numpy as it was given, got .*convert"):
        bnkit.batch_norm(x, None, None, mean, var, train=True, reduce=answer, in_place=True)
    np.testing.assert_array_equal(x, GOOD["x"])
    np.testing.assert_array_equal([mean, var], [np.zeros(5), np.ones(5)])


@pytest.mark.parametrize("option", ["correction", "activation", "axis"])
def test_an_array_for_an_option_is_refused_by_name(option: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{option} must"):
        bnkit.batch_norm(GOOD["x"], None, None, train=True, **{option: np.array([0, 1])})
