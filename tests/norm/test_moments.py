"""Moments: what they are of an array, and that parts merge to those of the whole however they are grouped."""

import functools
import itertools
import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_layers import draw, on

import bnkit
from bnkit import Moments

# Two passes in float64, in another order, over tens of elements of order 1.
ROUNDING = {"rtol": 1e-13, "atol": 1e-13}
U = 2.0**-53


def host(backend, moments: Moments) -> list[np.ndarray]:
    return [backend.to_numpy(a) for a in moments]


def expected(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    count = np.full(x.sum(axes).shape, x.size / x.sum(axes).size)
    return count, x.mean(axes), x.var(axes) * count


def exact(values: list[float]) -> tuple[Fraction, Fraction]:
    """Mean and squared distances, in rational numbers."""
    x = [Fraction(v) for v in values]
    mean = sum(x) / len(x)
    return mean, sum((v - mean) ** 2 for v in x)


def halves(parts: list[Moments]) -> Moments:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return halves(parts[:middle]).merge(halves(parts[middle:]))


GROUPINGS = {
    "at once": lambda parts: parts[0].merge(*parts[1:]),
    "one by one": lambda parts: functools.reduce(Moments.merge, parts),
    "by halves": halves,
}


@pytest.mark.parametrize(("axis", "shape", "reduced"), [(1, (7, 5), (0,)), (-1, (3, 4, 5), (0, 1))])
def test_moments_of_an_array_are_count_mean_and_squared_distances(backend, axis, shape, reduced):
    x = draw(*shape)
    for got, want in zip(host(backend, Moments.of(on(backend, x), axis=axis)), expected(x, reduced), strict=True):
        np.testing.assert_allclose(got, want, **ROUNDING)


def test_moments_of_replicas_have_the_shape_of_their_parameters(backend):
    x = draw(2, 7, 3)
    for got, want in zip(host(backend, Moments.of(on(backend, x), axis=(0, 2))), expected(x, (1,)), strict=True):
        assert got.shape == (2, 3)
        np.testing.assert_allclose(got, want, **ROUNDING)


def test_moments_under_a_mask_are_those_of_what_it_shows(backend):
    x, mask = draw(6, 3), np.array([1, 0, 1, 1, 0, 1], bool)
    got = Moments.of(on(backend, np.where(mask[:, None], x, np.nan)), mask=on(backend, mask))
    for a, want in zip(host(backend, got), expected(x[mask], (0,)), strict=True):
        np.testing.assert_allclose(a, want, **ROUNDING)


@pytest.mark.parametrize("mean", [0, 1e4])
@pytest.mark.parametrize("rows", [5, 50, 5000])
def test_moments_of_float32_are_as_near_as_they_say(rows, mean):
    x = draw(rows, 64, dtype="float32") + np.float32(mean)
    _, center, m2 = expected(x.astype(np.float64), (0,))
    got = Moments.of(x)
    np.testing.assert_allclose(got.m2, m2, rtol=2e-6)  # 32 roundings of 2**-24
    assert np.all(
        np.abs(got.mean - center) <= 2e-6 * np.sqrt(m2 / rows)
    )  # the same, of sums of distances from a k near it


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_moments_of_narrow_data_are_float64(dtype):
    x = draw(50, 3, dtype=dtype) + np.asarray(8, dtype)
    got = Moments.of(x)
    assert {a.dtype.name for a in got} == {"float64"}
    for a, want in zip(got, expected(x.astype("float64"), (0,)), strict=True):
        np.testing.assert_allclose(a, want, rtol=1e-6)  # kernels sum short runs in float32


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_parts_merge_to_the_moments_of_the_whole(backend, grouping):
    x = draw(23, 4)
    cuts = [0, 1, 2, 2, 9, 10, 23]  # of one row, of none, uneven
    parts = [Moments.of(on(backend, x[a:b])) for a, b in itertools.pairwise(cuts)]
    for got, want in zip(host(backend, GROUPINGS[grouping](parts)), expected(x, (0,)), strict=True):
        np.testing.assert_allclose(got, want, **ROUNDING)


PARTS = st.lists(st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), max_size=5), min_size=2, max_size=12).filter(
    lambda parts: sum(map(len, parts)) > 0
)


@pytest.mark.parametrize("grouping", GROUPINGS)
@given(PARTS, st.sampled_from([0.0, 1.0, 1e6]))
def test_any_grouping_keeps_within_the_bound_of_the_docstring(grouping, parts, offset):
    parts = [[v + offset for v in part] for part in parts]
    values = [v for part in parts for v in part]
    got = GROUPINGS[grouping]([Moments.of(np.array(part, "f8").reshape(-1, 1)) for part in parts])
    mean, m2 = exact(values)
    assert got.count == len(values)
    # `of` itself rounds, as a part more would.
    bound = 4 * (len(parts) + 1) * U
    assert abs(Fraction(float(got.mean[0])) - mean) <= bound * max(map(abs, values))
    if m2 > 0:
        condition = math.sqrt(1 + mean**2 / (m2 / len(values)))
        if bound * condition < 1e-3:  # beyond, the square of the bound counts too
            # Squares below 1e-308 are lost whole.
            assert abs(Fraction(float(got.m2[0])) - m2) <= bound * condition * m2 + len(values) * Fraction(2) ** -1020


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_parts_of_one_element_at_mean_1e6_keep_the_variance(backend, grouping):
    x = 1e6 + draw(1000, 1)
    got = GROUPINGS[grouping]([Moments.of(on(backend, x[i : i + 1])) for i in range(len(x))])
    mean, m2 = exact(x[:, 0].tolist())
    # κ = 1e6 times 1e-16 is 1e-10; E[x²] - m² would lose 1e-4.
    np.testing.assert_allclose(host(backend, got)[2], float(m2), rtol=1e-10)
    np.testing.assert_allclose(host(backend, got)[1], float(mean), rtol=1e-14)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_a_constant_channel_stays_exact(backend, grouping):
    x = np.broadcast_to(draw(200), (13, 200))  # shares of 3, 1 and 9 of 13 do not add up to 1
    parts = [Moments.of(on(backend, part)) for part in np.split(x, [3, 4])]
    count, mean, m2 = host(backend, GROUPINGS[grouping](parts))
    np.testing.assert_array_equal(mean, x[0])
    assert (count == 13).all()
    assert (m2 == 0).all()


@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_a_part_with_count_0_changes_nothing(backend, nothing):
    one = Moments.of(on(backend, draw(5, 3)))
    empty = Moments(*(on(backend, np.full(3, v)) for v in (0.0, nothing, nothing)))
    for merged in (one.merge(empty), empty.merge(one), empty.merge(one, empty)):
        for got, want in zip(host(backend, merged), host(backend, one), strict=True):
            np.testing.assert_array_equal(got, want)


def test_parts_without_any_element_merge_to_one_without(backend):
    empty = Moments.of(on(backend, draw(0, 2)))
    assert [a.tolist() for a in host(backend, empty.merge(empty))] == [[0.0, 0.0]] * 3


def test_nan_stays_in_its_channel(backend):
    x = draw(6, 3)
    x[1, 1] = np.nan
    merged = host(backend, Moments.of(on(backend, x[:4])).merge(Moments.of(on(backend, x[4:]))))
    for got, want in zip(merged[1:], expected(x, (0,))[1:], strict=True):
        np.testing.assert_allclose(got, want, **ROUNDING)
        assert np.isnan(got).tolist() == [False, True, False]


@pytest.mark.parametrize("correction", [0, 1])
def test_the_variance_subtracts_the_correction_from_the_count(backend, correction):
    x = draw(6, 3)
    got = Moments.of(on(backend, x)).var(correction)
    np.testing.assert_allclose(backend.to_numpy(got), x.var(0, ddof=correction), **ROUNDING)


def test_the_variance_of_too_few_is_nan(backend):
    assert np.isnan(backend.to_numpy(Moments.of(on(backend, draw(1, 2))).var(1))).all()


def test_moments_of_numbers_without_an_axis_merge():
    one = Moments(*(np.asarray(v) for v in (2.0, 1.0, 2.0)))
    assert [float(a) for a in one.merge(one).merge(one)] == [6.0, 1.0, 6.0]


def test_threads_merge_their_parts():
    x = draw(4000, 8)
    with ThreadPoolExecutor(4) as pool:
        merged = functools.reduce(Moments.merge, pool.map(Moments.of, np.array_split(x, 16)))
    for got, want in zip(merged, expected(x, (0,)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)  # thousands of elements


def test_processes_merge_their_parts():
    x = draw(400, 3)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        merged = functools.reduce(Moments.merge, pool.map(Moments.of, np.array_split(x, 5)))
    for got, want in zip(merged, expected(x, (0,)), strict=True):
        np.testing.assert_allclose(got, want, **ROUNDING)


def test_moments_survive_pickle(backend):
    one = Moments.of(on(backend, draw(5, 3)))
    again = pickle.loads(pickle.dumps(one))
    assert type(again) is Moments
    for got, want in zip(host(backend, again), host(backend, one), strict=True):
        np.testing.assert_array_equal(got, want)


def test_parts_of_two_backends_are_refused():
    ours, other = Moments.of(draw(5, 3)), Moments.of(on(bnkit.get_backend("strict"), draw(5, 3)))
    with pytest.raises(TypeError, match="one backend"):
        ours.merge(other)


def test_parts_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"count of part 1 must have the shape .*\(3,\), got \(4,\)"):
        Moments.of(draw(5, 3)).merge(Moments.of(draw(5, 4)))


@pytest.mark.parametrize("part", [3.0, (1, 2, 3), [Moments.of(np.ones((2, 1)))]])
def test_what_is_no_moments_is_refused(part):
    with pytest.raises(TypeError, match=r"others must be Moments, got .*; pass them one by one"):
        Moments.of(draw(5, 3)).merge(part)


def test_a_count_that_is_no_array_is_refused():
    with pytest.raises(TypeError, match="count of part 1 must be an array"):
        Moments.of(draw(5, 1)).merge(Moments(5, np.zeros(1), np.zeros(1)))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="x must be one of float16"):
        Moments.of(np.ones((3, 2), int))
