"""How arrays read as (groups, rows, channels, inner), and what memory results have."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnkit
from bnkit.backend import Backend
from bnkit.backend.layout import make_layout, memory_order, parameter_axes

TABLE: list[tuple[tuple[int, ...], int | tuple[int, ...], tuple[int, ...]]] = [
    ((6, 5), 1, (1, 6, 5, 1)),
    ((6, 5, 3, 2), 1, (1, 6, 5, 6)),
    ((6, 3, 2, 5), -1, (1, 36, 5, 1)),
    ((6, 5, 3, 2), (1, 2, 3), (1, 6, 30, 1)),
    ((4, 6, 5), (0, 2), (4, 6, 5, 1)),
    ((6, 5), 0, (1, 1, 6, 5)),
    ((6, 5, 3), (0, 1), (1, 1, 30, 3)),
    ((4, 6, 5, 3, 2), (0, 2), (4, 6, 5, 6)),
    ((6, 5, 3, 2), (-2, -3), (1, 6, 15, 2)),
]


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def channels_last(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def element_strides(a: np.ndarray[Any, Any]) -> list[int]:
    return [s for s, n in zip(a.strides, a.shape, strict=True) if n > 1]


@pytest.mark.parametrize(("shape", "axis", "view"), TABLE, ids=str)
def test_the_view_is_that_of_the_table(
    shape: tuple[int, ...], axis: int | tuple[int, ...], view: tuple[int, ...], backend: Backend
) -> None:
    x = random(shape)
    assert tuple(backend.view(backend.asarray(x), axis).shape) == view


def test_the_view_of_channels_last_memory_is_no_copy() -> None:
    numpy = bnkit.get_backend("numpy")
    x = channels_last(random((4, 5, 3, 2)))
    view = numpy.view(x, 1)
    assert view.shape == (1, 24, 5, 1)
    assert np.shares_memory(view, x)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_view_of_dense_rows_is_no_copy(order: Any) -> None:
    x = np.asarray(random((6, 5)), order=order)
    assert np.shares_memory(bnkit.get_backend("numpy").view(x, 1), x)


@pytest.mark.parametrize("axis", [(1, 3), (0, 1, 3), (1, 2, 4), (0, 2, 4)], ids=str)
def test_axes_that_are_not_adjacent_are_refused(axis: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="adjacent"):
        bnkit.batch_norm(random((2, 3, 2, 3, 2)), None, None, train=True, axis=axis)


@pytest.mark.parametrize("axis", [(0, 2), (0, 2, 3), (0, 2, 3, 4), (0, -1), (3, 0, 2)], ids=str)
def test_axis_0_may_join_adjacent_axes_in_any_order(axis: tuple[int, ...]) -> None:
    assert parameter_axes(axis, 5) == tuple(sorted(a % 5 for a in axis))


@pytest.mark.parametrize("axis", [4, -5, (0, 4), (1, 1), (1, -3)], ids=str)
def test_axes_that_do_not_exist_or_come_twice_are_refused(axis: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="axis"):
        bnkit.batch_norm(random((2, 3, 4, 5)), None, None, train=True, axis=axis)


@pytest.mark.parametrize("axis", [True, 1.0, "1", None, (1.0,), ()], ids=repr)
def test_an_axis_of_another_type_is_refused_whatever_was_asked_before(axis: Any) -> None:
    x = random((2, 3))
    for earlier in (1, (1,)):
        bnkit.batch_norm(x, None, None, train=True, axis=earlier)
    with pytest.raises(TypeError, match="axis"):
        bnkit.batch_norm(x, None, None, train=True, axis=axis)


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), seed=st.integers(0, 2**32), data=st.data())
def test_every_dense_memory_order_comes_back(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    order = tuple(rng.permutation(len(shape)))
    x = np.transpose(random(tuple(shape[a] for a in order), seed), np.argsort(order))
    first = data.draw(st.integers(0, len(shape) - 1))
    axis = tuple(range(first, data.draw(st.integers(first, len(shape) - 1)) + 1))
    layout = make_layout(x.shape, axis, memory_order(x))
    back = layout.restore(np, layout.view(np, x).copy())
    np.testing.assert_array_equal(back, x)
    assert element_strides(back) == element_strides(x)


def strided() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "C": random((6, 5, 3, 2)),
        "F": np.asfortranarray(random((6, 5, 3, 2))),
        "channels-last": channels_last(random((6, 5, 3, 2))),
        "channels-last with one row": channels_last(random((1, 5, 3, 2))),
        "channels-last of height one": channels_last(random((6, 5, 1, 2))),
        "transposed images": random((6, 5, 3, 2)).transpose(0, 1, 3, 2),
        "every second row": random((12, 5, 3, 2))[::2],
        "every second channel": random((6, 10, 3, 2))[:, ::2],
        "every second channel of channels-last": channels_last(random((6, 10, 3, 2)))[:, ::2],
        "every second column of channels-last": channels_last(random((6, 5, 3, 4)))[..., ::2],
        "every second row of F": np.asfortranarray(random((12, 5, 3, 2)))[::2],
        "reversed rows": random((6, 5, 3, 2))[::-1],
        "reversed channels": random((6, 5, 3, 2))[:, ::-1],
        "broadcast": np.broadcast_to(random((6, 5, 1, 1)), (6, 5, 3, 2)),
        "empty": random((6, 5, 3, 2))[:0],
        "no channels": random((6, 5, 3, 2))[:, :0],
        "no width": random((6, 5, 3, 2))[..., :0],
        "(N, D), F": np.asfortranarray(random((6, 5))),
        "(N, D), every second row of F": random((5, 12)).T[::2],
        "(N, D), reversed columns": random((6, 5))[:, ::-1],
        "(N, D), reversed": random((6, 5))[::-1, ::-1],
        "(N, C, L), last axis first": random((2, 6, 5)).transpose(1, 2, 0),
    }


@pytest.mark.parametrize("name", strided())
@pytest.mark.parametrize("axis", [1, -1, "all but the first"])
def test_results_have_the_strides_of_dense_x_and_else_c_order(name: str, axis: Any) -> None:
    x = strided()[name]
    axis = tuple(range(1, x.ndim)) if axis == "all but the first" else axis
    residual, dy = np.empty_like(x), np.empty_like(x)  # of the same order, as a network passes them
    residual[...], dy[...] = random(x.shape, 1), random(x.shape, 2)
    want = bnkit.batch_norm(np.ascontiguousarray(x), None, None, train=True, axis=axis, residual=residual)
    wanted = bnkit.batch_norm_backward(dy, want[1])
    y, cache = bnkit.batch_norm(x, None, None, train=True, axis=axis, residual=residual)
    grads = bnkit.batch_norm_backward(dy, cache)
    expected = x if memory_order(x) is not None else np.ascontiguousarray(x)
    for result, value in ((y, want[0]), (grads.dx, wanted.dx), (grads.dresidual, wanted.dresidual)):
        # sums in another order: a few ulps of float64, which a float32 shows in its last bit at most
        np.testing.assert_allclose(result, value, rtol=1e-6, atol=1e-6)
    if x.size:
        assert element_strides(y) == element_strides(expected)
        assert element_strides(grads.dx) == element_strides(expected)


@pytest.mark.parametrize("name", strided())
@pytest.mark.parametrize("axis", [1, -1, "all but the first"])
def test_out_takes_the_memory_that_a_new_result_would_have(name: str, axis: Any) -> None:
    x = strided()[name]
    axis = tuple(range(1, x.ndim)) if axis == "all but the first" else axis
    y, cache = bnkit.batch_norm(x, None, None, train=True, axis=axis)
    out = np.full_like(y, np.nan)  # keeps the order of y
    assert bnkit.batch_norm(x, None, None, train=True, axis=axis, out=out)[0] is out
    np.testing.assert_array_equal(out, y)
    dy = random(x.shape, 2)
    dx = bnkit.batch_norm_backward(dy, cache).dx
    out = np.full_like(y, np.nan)
    assert bnkit.batch_norm_backward(dy, cache, out=out).dx is out
    np.testing.assert_array_equal(out, dx)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)], ids=str)
@pytest.mark.parametrize(("axis", "ghost"), [((0, 2), None), ((0, 2), 2), (1, 2), (2, 2), ((1, 2), 2)], ids=str)
def test_no_memory_order_changes_what_replicas_and_ghost_batches_are(order: Any, axis: Any, ghost: int | None) -> None:
    x, dy = random((4, 6, 8)), random((4, 6, 8), 1)
    results = []
    for each in (x, np.transpose(np.transpose(x, order).copy(), np.argsort(order))):
        y, cache = bnkit.batch_norm(each, None, None, train=True, axis=axis, ghost=ghost)
        results.append((y, bnkit.batch_norm_backward(dy, cache).dx))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)  # float32's last bit, after sums in another order
