"""The CPU kernel of products whose first matrix is mostly 0, and what it leaves to NumPy."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_memory import is_untouched_around, memories, place, start_child, told_by

import bnkit
from bnkit import Linear
from bnkit_numpy import compiled_kernels

Array = np.ndarray[Any, Any]
KERNELS: Any = compiled_kernels()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="installed without the compiled kernels")
# Half of it is a rounding, of which each term of a sum has one, and the sum so far another.
ULP = {"float32": 2.0**-23, "float64": 2.0**-52}
# Rows of one task and of many, inner of one block and of many, columns of a vector, between two and of several tiles.
SHAPES = [(16, 700, 100), (257, 128, 33), (513, 129, 16), (100, 784, 100), (60, 400, 225), (20, 300, 1009)]

CHILD = """
    import zlib
    import numpy as np
    from bnkit import get_backend
    from test_numpy_kernels_product import SHAPES, matrices
    backend, checksum = get_backend("numpy"), 0
    for shape in SHAPES:
        for dtype in ("float32", "float64"):
            for own in (False, True):
                a, b = matrices(*shape, dtype, replicas=3, own=own)
                checksum = zlib.crc32(backend.matmul(a, b).tobytes(), checksum)
    print(checksum)
"""


def matrices(
    rows: int, inner: int, columns: int, dtype: str, *, replicas: int = 0, own: bool = False, zeros: float = 0.8
) -> tuple[Array, Array]:
    rng = np.random.default_rng((rows, inner, columns))
    lead = (replicas,) if replicas else ()
    a = rng.normal(size=(*(lead if own else ()), rows, inner))
    a *= rng.random(a.shape) >= zeros
    return a.astype(dtype), rng.normal(size=(*lead, inner, columns)).astype(dtype)


def by_columns(a: Array) -> Array:
    """The same matrices with contiguous columns."""
    return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)


def by_kernel(a: Array, b: Array) -> Array:
    found = KERNELS.sparse_product(a, b)
    assert found is not None, "the kernel left it to NumPy"
    assert found[1] == []
    product: Array = found[0]
    return product


def check(got: Array, a: Array, b: Array) -> None:
    wide, bound = (np.matmul(f(a), f(b)) for f in (lambda m: m.astype(np.longdouble), np.abs))
    assert got.dtype == a.dtype
    assert got.shape == wide.shape
    assert (np.abs(got - wide) <= a.shape[-1] * ULP[a.dtype.name] * bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("replicas", "own"), [(0, False), (3, False), (3, True)])
def test_the_product_is_the_sum_of_its_terms(shape: Any, dtype: str, replicas: int, own: bool) -> None:
    a, b = matrices(*shape, dtype, replicas=replicas, own=own)
    check(by_kernel(a, b), a, b)
    check(by_kernel(by_columns(a), b), a, b)


@given(st.integers(64, 300), st.integers(256, 400), st.integers(64, 300), st.sampled_from(sorted(ULP)), st.data())
@settings(deadline=None, max_examples=60)
def test_drawn_shapes_in_drawn_memory(rows: int, inner: int, columns: int, dtype: str, data: Any) -> None:
    given_ = matrices(rows, inner, columns, dtype)
    placed = [place(m, data.draw(memories(2, m.itemsize, whole=True))) for m in given_]
    check(by_kernel(*(p.array for p in placed)), *given_)
    assert all(is_untouched_around(p) for p in placed)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_b_is_left_to_numpy_for_its_replica_alone(bad: float) -> None:
    a, b = matrices(100, 300, 64, "float32", replicas=3)
    clean = by_kernel(a, b)
    b[1, 299, 63] = bad
    for left in (a, by_columns(a)):
        product, missing = KERNELS.sparse_product(left, b)
        assert missing == [1]
        np.testing.assert_array_equal(product[[0, 2]], clean[[0, 2]])
        with np.errstate(invalid="ignore"):
            whole = bnkit.get_backend("numpy").matmul(left, b)
            np.testing.assert_array_equal(whole[1], np.matmul(left, b[1]))
        np.testing.assert_array_equal(whole[[0, 2]], clean[[0, 2]])
        assert np.isnan(whole[1, :, 63]).sum() > 70  # of the 100 rows those where a is 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_in_a_stays_in_its_row(bad: float) -> None:
    a, b = matrices(100, 300, 64, "float64")
    clean = by_kernel(a, b)
    a[7, 3] = bad
    for left in (a, by_columns(a)):
        got = by_kernel(left, b)
        assert not np.isfinite(got[7]).any()
        np.testing.assert_array_equal(np.delete(got, 7, 0), np.delete(clean, 7, 0))


@pytest.mark.parametrize("own", [False, True])
def test_a_replica_has_the_bits_that_it_has_alone(own: bool) -> None:
    a, b = matrices(100, 300, 64, "float32", replicas=3, own=own)
    if own:
        a[1] = 1  # and is left to NumPy, where the others are not
    whole = bnkit.get_backend("numpy").matmul(a, b)
    for r in range(3):
        alone = bnkit.get_backend("numpy").matmul(a[r] if own else a, b[r])
        np.testing.assert_array_equal(whole[r], alone)
    assert KERNELS.sparse_product(a, b)[1] == ([1] if own else [])


@pytest.mark.slow
def test_the_bits_are_the_same_with_any_threads() -> None:
    children = [start_child(CHILD, BNKIT_NUM_THREADS=str(count)) for count in (1, 2, 3, 5)]
    assert len({told_by(child) for child in children}) == 1


@pytest.mark.slow
def test_every_level_gives_the_product() -> None:
    script = """
        from test_numpy_kernels_product import SHAPES, by_columns, by_kernel, check, matrices
        for shape in SHAPES:
            for dtype in ("float32", "float64"):
                a, b = matrices(*shape, dtype, replicas=2)
                check(by_kernel(a, b), a, b)
                check(by_kernel(by_columns(a), b), a, b)
        print("done")
    """
    children = [start_child(script, BNKIT_CPU_LEVEL=level) for level in KERNELS.kernel_levels()]
    assert {told_by(child) for child in children} == {"done\n"}


sparse = functools.partial(matrices, 100, 300, 64)


DECLINED = {
    "dense": sparse("float32", zeros=0.5),
    "dense replicas": sparse("float32", zeros=0.5, replicas=3),
    "too small": matrices(10, 300, 64, "float32"),
    "narrower than a vector": matrices(1000, 300, 3, "float32"),
    "float16": sparse("float16"),
    "two dtypes": (sparse("float32")[0], sparse("float64")[1]),
    "foreign byte order": (sparse("float32")[0].astype(">f4"), sparse("float32")[1]),
    "a with steps": (np.repeat(sparse("float32")[0], 2, axis=1)[:, ::2], sparse("float32")[1]),
    "b by columns": (sparse("float32")[0], np.asfortranarray(sparse("float32")[1])),
    "four axes": (sparse("float32", replicas=2, own=True)[0][:, None], sparse("float32", replicas=2)[1]),
    "one b for many a": (sparse("float32", replicas=2, own=True)[0], sparse("float32")[1]),
    "no replicas": (np.zeros((100, 300), np.float32), np.zeros((0, 300, 64), np.float32)),
    "no rows": (np.zeros((0, 300), np.float32), np.zeros((300, 64), np.float32)),
}


@pytest.mark.parametrize(("a", "b"), DECLINED.values(), ids=DECLINED)
def test_numpy_gets_what_the_kernel_does_not_take(a: Array, b: Array) -> None:
    assert KERNELS.sparse_product(a, b) is None
    np.testing.assert_array_equal(bnkit.get_backend("numpy").matmul(a, b), np.matmul(a, b))


def test_matrices_that_do_not_fit_are_numpys_to_refuse() -> None:
    a, b = sparse("float32")
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        bnkit.get_backend("numpy").matmul(a, b[1:])


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_linear_layer_goes_by_the_kernel(replicas: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(300, 64, backend="numpy", replicas=replicas)
    x, seen = sparse("float32")[0], []
    matmul = bnkit.get_backend("numpy").matmul
    monkeypatch.setattr(bnkit.get_backend("numpy"), "matmul", lambda a, b: seen.append((a, b)) or matmul(a, b))
    y, cache = layer.forward(x, train=True)
    layer.gradients(y, cache)
    assert [KERNELS.sparse_product(a, b)[1] for a, b in seen] == [[], []]
