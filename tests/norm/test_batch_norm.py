"""`bnkit.batch_norm` and its backward: values, shapes, dtypes, the cache, and `out`, on every backend."""

import inspect
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import textbook
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
# y and dx are below 8 here, where a float32 is rounded by 2.4e-7; parameters' gradients are sums, with rtol
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}  # float64: a few roundings
FORMS: list[tuple[tuple[int, ...], int | tuple[int, ...]]] = [
    ((7, 5), 1),
    ((7, 5), -1),
    ((4, 3, 5), 1),
    ((4, 3, 2, 5), 1),
    ((4, 3, 2, 5), -1),
    ((4, 3, 2, 5), (1, 2, 3)),
    ((4, 3, 2, 5), (2, 1)),
    ((3, 7, 5), (0, 2)),
    ((3, 7, 5), (-1, 0)),
    ((3, 7, 5), (0, 1)),
    ((2, 4, 3, 5), (0, 2)),
    ((5, 7), 0),
    ((5, 3, 4), (1,)),
]


def random(*shape: int, dtype: Any = "float32", seed: int = 0, mean: float = 0.5) -> Host:
    return np.random.default_rng((seed, *shape)).normal(mean, 1.5, shape).astype(dtype)


def kept(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> tuple[int, ...]:
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(shape[a] for a in sorted(a % len(shape) for a in axes))


def parameters(shape: tuple[int, ...], dtype: Any = "float32") -> list[Host]:
    """gamma, beta, running_mean, running_var"""
    rng = np.random.default_rng(shape)
    return [rng.uniform(low, 2, shape).astype(dtype) for low in (-2, -1, -1, 0.5)]


def host(backend: Backend, *arrays: Any) -> list[Host]:
    return [backend.to_numpy(a) for a in arrays]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("shape", "axis"), FORMS, ids=str)
def test_every_legal_axis_gives_the_textbooks_result(
    shape: tuple[int, ...], axis: int | tuple[int, ...], train: bool, dtype: str, backend: Backend
) -> None:
    x, dy, residual = (random(*shape, dtype=dtype, seed=s) for s in range(3))
    small = parameters(kept(shape, axis), dtype)
    call: dict[str, Any] = {"train": train, "axis": axis, "activation": "relu"}
    want = textbook.forward(x, *small, residual=residual, **call)
    gradients = textbook.backward(dy, x, *small, residual=residual, **call)
    there = [backend.asarray(a.copy()) for a in small]
    y, cache = bnkit.batch_norm(backend.asarray(x), *there, residual=backend.asarray(residual), **call)
    grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    tolerance = EXACT if dtype == "float64" else CLOSE
    for got, wanted in zip(host(backend, y, *grads), (want.y, *gradients), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted.astype(float), **tolerance)
    for got, wanted in zip(host(backend, *there[2:]), want[1:], strict=True):
        np.testing.assert_allclose(got, wanted.astype(float), **tolerance)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data())
def test_any_shape_and_any_options_give_the_textbooks_result(data: st.DataObject, backend: Backend) -> None:
    shape, axis = data.draw(
        st.one_of(
            st.tuples(st.lists(st.integers(2, 5), min_size=2, max_size=4).map(tuple), st.just(1)),
            st.tuples(st.lists(st.integers(2, 5), min_size=2, max_size=4).map(tuple), st.just(-1)),
            st.tuples(st.lists(st.integers(2, 5), min_size=3, max_size=4).map(tuple), st.just((0, 2))),
        )
    )
    x, dy, residual = (random(*shape, dtype="float64", seed=s) for s in range(3))
    given_ = {name: data.draw(st.booleans(), name) for name in ("gamma", "beta", "residual", "mask")}
    small = [a if given_.get(name, True) else None for name, a in zip(
        ("gamma", "beta", "mean", "var"), parameters(kept(shape, axis), "float64"), strict=True
    )]  # fmt: skip
    call: dict[str, Any] = {
        "train": True,
        "axis": axis,
        "activation": data.draw(st.sampled_from([None, "relu"])),
        "ghost": data.draw(st.sampled_from([None, 2, 3, 100])),
        "decay": data.draw(st.sampled_from([0.9, 0.0, -1.2])),
        "correction": 0,
    }
    mask = random(*shape, seed=9) > 0 if given_["mask"] else None
    residual_ = residual if given_["residual"] else None
    want = textbook.forward(x, *small, residual=residual_, mask=mask, **call)
    gradients = textbook.backward(dy, x, *small, residual=residual_, mask=mask, **call)

    def there(a: Host | None) -> Any:
        return None if a is None else backend.asarray(a.copy())

    arrays = [there(a) for a in small]
    y, cache = bnkit.batch_norm(there(x), *arrays, residual=there(residual_), mask=there(mask), **call)
    grads = bnkit.batch_norm_backward(there(dy), cache)
    # up to 1e-5 in the variance of few elements: rstd ≤ 316, and dx has its square
    tolerance = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(backend.to_numpy(y), want.y.astype(float), **tolerance)
    for name, got, wanted in zip(grads._fields, grads, gradients, strict=True):
        if name == "dx" or given_[name[1:]]:
            np.testing.assert_allclose(backend.to_numpy(got), wanted.astype(float), **tolerance, err_msg=name)
        else:
            assert got is None
    np.testing.assert_allclose(backend.to_numpy(arrays[2]), want.running_mean.astype(float), **tolerance)
    np.testing.assert_allclose(backend.to_numpy(arrays[3]), want.running_var.astype(float), **tolerance)


@pytest.mark.parametrize("missing", [("gamma",), ("beta",), ("gamma", "beta")], ids=str)
@pytest.mark.parametrize("train", [True, False])
def test_gamma_and_beta_may_be_left_out_each_by_itself(missing: tuple[str, ...], train: bool, backend: Backend) -> None:
    x, dy = random(7, 5), random(7, 5, seed=1)
    gamma, beta, *running = parameters((5,))
    given_ = [None if "gamma" in missing else gamma, None if "beta" in missing else beta]
    want = textbook.forward(x, *given_, *running, train=train)
    gradients = textbook.backward(dy, x, *given_, *running, train=train)
    there = [None if a is None else backend.asarray(a) for a in (*given_, *running)]
    y, cache = bnkit.batch_norm(backend.asarray(x), *there, train=train)
    grads = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    np.testing.assert_allclose(backend.to_numpy(y), want.y.astype(float), **CLOSE)
    np.testing.assert_allclose(backend.to_numpy(grads.dx), gradients.dx.astype(float), **CLOSE)
    for name in ("gamma", "beta"):
        assert (getattr(grads, f"d{name}") is None) == (name in missing)
    assert grads.dresidual is None


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("train", [True, False])
def test_half_precision_is_storage_only(dtype: Any, train: bool) -> None:
    dtype = np.dtype(dtype)
    x, dy, residual = (random(300, 5, dtype=dtype, seed=s, mean=20) for s in range(3))
    small = parameters((5,))
    before = [a.copy() for a in small]
    want = textbook.forward(x, *small, train=train, residual=residual)
    gradients = textbook.backward(dy, x, *small, train=train, residual=residual)
    y, cache = bnkit.batch_norm(x, *small, train=train, residual=residual)
    grads = bnkit.batch_norm_backward(dy, cache)
    assert y.dtype == grads.dx.dtype == grads.dresidual.dtype == dtype
    assert grads.dgamma.dtype == grads.dbeta.dtype == np.float32
    half_ulp = 2.0**-11 if dtype == np.float16 else 2.0**-8  # the result is rounded once
    np.testing.assert_allclose(y.astype(float), want.y.astype(float), rtol=half_ulp, atol=1e-3 * half_ulp)
    left = 20 * 2.0**-24  # of the mean of dy, which the statistics take off in float32
    np.testing.assert_allclose(grads.dx.astype(float), gradients.dx.astype(float), rtol=half_ulp, atol=left)
    # a sum in float32: each of its terms, most of which cancel since dy has a mean of 20, rounds three times
    wide, mean, var = x.astype(float), *before[2:]
    x_hat = (wide - wide.mean(0)) / wide.std(0) if train else (wide - mean) / np.sqrt(var)
    terms = np.abs(dy.astype(float) * x_hat).sum(0)
    assert np.all(np.abs(grads.dgamma - gradients.dgamma.astype(float)) <= 3 * 2.0**-24 * terms)
    if train:
        np.testing.assert_allclose(small[2], want.running_mean.astype(float), **CLOSE)
        np.testing.assert_allclose(small[3], want.running_var.astype(float), **CLOSE)
    else:
        assert all(np.array_equal(a, b) for a, b in zip(small, before, strict=True))


def test_running_arrays_keep_identity_and_dtype(backend: Backend) -> None:
    for dtype in ("float32", "float64"):
        gamma, beta, mean, var = (backend.asarray(a) for a in parameters((5,), dtype))
        _, before = host(backend, mean, mean + 0)
        view = mean[...] if backend.name == "numpy" else mean
        bnkit.batch_norm(backend.asarray(random(7, 5, dtype=dtype)), gamma, beta, mean, var, train=True)
        assert backend.to_numpy(mean).dtype == backend.to_numpy(var).dtype == dtype
        assert not np.array_equal(backend.to_numpy(view), before)


@pytest.mark.parametrize("layout", ["C", "F", "every second", "reversed"])
def test_running_arrays_of_any_strides_are_moved_in_place(layout: str) -> None:
    x, (_, _, mean, var) = random(6, 4, 3), parameters((4, 3))
    want = textbook.forward(x, None, None, mean, var, axis=(1, 2))

    def strided(a: Host) -> Host:
        if layout == "every second":
            room = np.zeros((8, 6), a.dtype)
            room[::2, ::2] = a
            return room[::2, ::2]
        if layout == "reversed":
            return a[::-1].copy()[::-1]
        return np.array(a, order=layout)  # type: ignore[call-overload]

    mean, var = strided(mean), strided(var)
    bnkit.batch_norm(x, None, None, mean, var, train=True, axis=(1, 2))
    np.testing.assert_allclose(mean, want.running_mean.astype(float), **CLOSE)
    np.testing.assert_allclose(var, want.running_var.astype(float), **CLOSE)


def test_parameters_of_any_strides_are_read_right() -> None:
    x, (gamma, beta, mean, var) = random(6, 4, 3), parameters((4, 3))
    for train in (True, False):
        want = bnkit.batch_norm(x, gamma, beta, mean.copy(), var.copy(), train=train, axis=(1, 2))[0]
        fortran = [np.asfortranarray(a.copy()) for a in (gamma, beta, mean, var)]
        got = bnkit.batch_norm(x, *fortran, train=train, axis=(1, 2))[0]
        np.testing.assert_array_equal(got, want)


def test_inference_moves_no_running_arrays_and_takes_read_only_ones() -> None:
    small = parameters((5,))
    before = [a.copy() for a in small]
    for a in small:
        a.flags.writeable = False
    bnkit.batch_norm(random(7, 5), *small, train=False)
    assert all(np.array_equal(a, b) for a, b in zip(small, before, strict=True))


def test_read_only_inputs_are_taken() -> None:
    x, dy, residual, gamma, beta = (random(*s) for s in ((7, 5), (7, 5), (7, 5), (5,), (5,)))
    mask = random(7, 5) > 0
    results = []
    for writeable in (True, False):
        for a in (x, dy, residual, gamma, beta, mask):
            a.flags.writeable = writeable
        y, cache = bnkit.batch_norm(x, gamma, beta, train=True, residual=residual, activation="relu", mask=mask)
        results.append((y, *bnkit.batch_norm_backward(dy, cache)))
    for free, read_only in zip(*results, strict=True):
        np.testing.assert_array_equal(free, read_only)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_the_backward_reads_x_alone_of_the_callers_arrays(
    train: bool, activation: str | None, with_residual: bool, backend: Backend
) -> None:
    def call(*, spoil: bool) -> list[Host]:
        x, dy, residual = (backend.asarray(random(7, 5, seed=s)) for s in range(3))
        gamma, beta, mean, var = (backend.asarray(random(5, seed=s) ** 2) for s in range(4))
        mask = backend.asarray(random(7, 5, seed=9) > 0)
        arrays = [gamma, beta, mean, var, *([mask] if train else []), *([residual] if with_residual else [])]
        options: dict[str, Any] = {"mask": mask if train else None, "residual": residual if with_residual else None}
        y, cache = bnkit.batch_norm(x, gamma, beta, mean, var, train=train, activation=activation, **options)
        if spoil:
            for a in (*arrays, y):
                a[...] = backend.xp.zeros_like(a)
        return [backend.to_numpy(g) for g in bnkit.batch_norm_backward(dy, cache) if g is not None]

    for got, wanted in zip(call(spoil=True), call(spoil=False), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_negative_running_variance_is_nan_in_its_channel_in_inference(backend: Backend) -> None:
    var = backend.asarray(np.float32([1, -1, 4, -1e-6, 0]))  # var + eps is below 0 in channel 1 alone
    x, mean = backend.asarray(random(7, 5)), backend.asarray(np.zeros(5, np.float32))
    y, _ = bnkit.batch_norm(x, None, None, mean, var, train=False)
    assert np.isnan(backend.to_numpy(y)).all(axis=0).tolist() == [False, True, False, False, False]
    assert np.isfinite(backend.to_numpy(y)[:, [0, 2, 3, 4]]).all()


def test_one_cache_serves_several_backwards_and_two_may_be_alive(backend: Backend) -> None:
    x, other, dy = (backend.asarray(random(7, 5, seed=s)) for s in range(3))
    gamma, beta, *_ = (backend.asarray(a) for a in parameters((5,)))
    _, first = bnkit.batch_norm(x, gamma, beta, train=True, residual=other, activation="relu")
    _, second = bnkit.batch_norm(other, gamma, beta, train=True)
    results = [bnkit.batch_norm_backward(dy, cache) for cache in (first, second, first, second)]
    for i in (0, 1):
        for a, b in zip(results[i][:3], results[i + 2][:3], strict=True):
            np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
    assert not np.array_equal(backend.to_numpy(results[0].dx), backend.to_numpy(results[1].dx))


@pytest.mark.parametrize("train", [True, False])
def test_small_arrays_may_change_between_forward_and_backward(train: bool, backend: Backend) -> None:
    x, dy = backend.asarray(random(7, 5)), backend.asarray(random(7, 5, seed=1))
    mask = backend.asarray(random(7, 5, seed=2) > 0)
    small = [backend.asarray(a) for a in parameters((5,))]
    _, cache = bnkit.batch_norm(x, *small, train=train, activation="relu", mask=mask)
    before = host(backend, *bnkit.batch_norm_backward(dy, cache)[:3])
    for a in small:
        a[...] = -3.0 * a + 1.0
    mask[...] = backend.asarray(random(7, 5, seed=3) > 0)
    after = host(backend, *bnkit.batch_norm_backward(dy, cache)[:3])
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("axis", [1, -1, (1, 2), (0, 2)], ids=str)
@pytest.mark.parametrize("ghost", [None, 2])
def test_out_is_written_whole_and_returned(axis: Any, ghost: int | None, backend: Backend) -> None:
    shape = (5, 4, 3)
    x, dy, residual = (backend.asarray(random(*shape, seed=s)) for s in range(3))
    small = [backend.asarray(a) for a in parameters(kept(shape, axis))]
    for train in (True, False):
        call: dict[str, Any] = {"train": train, "axis": axis, "residual": residual, "activation": "relu"}
        y, cache = bnkit.batch_norm(x, *small[:2], *(small[2:] if not train else ()), ghost=ghost, **call)
        grads = bnkit.batch_norm_backward(dy, cache)
        out, dx = (backend.asarray(np.full(shape, np.nan, np.float32)) for _ in range(2))
        got, cache = bnkit.batch_norm(x, *small[:2], *(small[2:] if not train else ()), ghost=ghost, out=out, **call)
        back = bnkit.batch_norm_backward(dy, cache, out=dx)
        assert got is out
        assert back.dx is dx
        np.testing.assert_array_equal(*host(backend, out, y))
        np.testing.assert_array_equal(*host(backend, dx, grads.dx))
        np.testing.assert_array_equal(*host(backend, back.dresidual, grads.dresidual))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_dx_may_be_written_over_dy(train: bool, residual: bool, backend: Backend) -> None:
    x, dy = backend.asarray(random(7, 5)), random(7, 5, seed=1)
    small = [backend.asarray(a) for a in parameters((5,))]
    extra = backend.asarray(random(7, 5, seed=2)) if residual else None
    _, cache = bnkit.batch_norm(x, *small, train=train, residual=extra, activation="relu")
    want = bnkit.batch_norm_backward(backend.asarray(dy), cache)
    there = backend.asarray(dy.copy())
    got = bnkit.batch_norm_backward(there, cache, out=there)
    assert got.dx is there
    for a, b in zip(got, want, strict=True):
        if b is not None:
            np.testing.assert_array_equal(*host(backend, a, b))


def test_y_may_be_written_over_x_in_inference_but_then_has_no_backward(backend: Backend) -> None:
    x = random(7, 5)
    small = [backend.asarray(a) for a in parameters((5,))]
    want, _ = bnkit.batch_norm(backend.asarray(x), *small, train=False, activation="relu")
    there = backend.asarray(x.copy())
    y, cache = bnkit.batch_norm(there, *small, train=False, activation="relu", out=there)
    assert y is there
    np.testing.assert_array_equal(*host(backend, y, want))
    with pytest.raises(ValueError, match="x"):
        bnkit.batch_norm_backward(backend.asarray(random(7, 5, seed=1)), cache)


def test_an_empty_batch_leaves_the_running_arrays_alone(backend: Backend) -> None:
    for shape in ((0, 5), (0, 5, 3), (4, 5, 0)):
        small = [backend.asarray(a.copy()) for a in parameters((5,))]
        for ghost in (None, 2):
            y, cache = bnkit.batch_norm(backend.asarray(random(*shape)), *small, train=True, ghost=ghost)
            grads = bnkit.batch_norm_backward(y, cache)
            assert tuple(y.shape) == tuple(grads.dx.shape) == shape
            assert not np.any(backend.to_numpy(grads.dgamma))
            for a, b in zip(host(backend, *small), parameters((5,)), strict=True):
                np.testing.assert_array_equal(a, b)


def test_no_result_waits_for_device_data(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.name != "strict":
        pytest.skip("only the strict double can forbid a read")

    def forbidden(self: Any, *_: Any) -> Any:
        raise AssertionError("read of device data")

    x, dy, residual = (backend.asarray(random(7, 5, seed=s)) for s in range(3))
    mask, small = backend.asarray(random(7, 5) > 0), [backend.asarray(a) for a in parameters((5,))]
    for method in ("__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(type(x), method, forbidden)
    for call in ({"train": True, "mask": mask}, {"train": False}, {"train": True, "ghost": 3, "correction": 0}):
        _, cache = bnkit.batch_norm(x, *small, residual=residual, **call)  # type: ignore[arg-type]
        bnkit.batch_norm_backward(dy, cache)


def test_train_has_no_default_and_options_are_given_by_name() -> None:
    signature = inspect.signature(bnkit.batch_norm).parameters
    assert signature["train"].default is inspect.Parameter.empty
    assert [n for n, p in signature.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == [
        "x", "gamma", "beta", "running_mean", "running_var",
    ]  # fmt: skip
    defaults = {n: p.default for n, p in signature.items() if p.kind is p.KEYWORD_ONLY and n != "train"}
    assert defaults == {
        "axis": 1, "decay": 0.9, "eps": 1e-5, "correction": 1, "mask": None, "residual": None, "activation": None,
        "ghost": None, "reduce": None, "renorm": None, "in_place": False, "out": None,
    }  # fmt: skip
