import numpy as np
import pytest

from bnkit.testing.gradients import numerical_gradient


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_gradient_of_a_quadratic_is_exact(backend):
    host, matrix = draw(3, 4), draw(4, 4, seed=1)
    x, m = backend.asarray(host.copy()), backend.asarray(matrix)
    found = numerical_gradient(lambda: backend.xp.sum((x @ m) * x), x)
    # Central differences of a quadratic have no h² term; what remains is rounding, 1e-16 * |f| / h.
    np.testing.assert_allclose(found, host @ (matrix + matrix.T), rtol=0, atol=1e-9)


def test_gradient_of_a_smooth_function_errs_by_h_squared(backend):
    host = draw(5)
    x = backend.asarray(host.copy())
    for h in (1e-2, 1e-3):
        found = numerical_gradient(lambda: backend.xp.sum(backend.xp.sin(x)), x, h)
        # sin(a + h) - sin(a - h) = 2 cos(a) sin(h), so the error is cos(a) (1 - sin(h) / h), up to rounding.
        np.testing.assert_allclose(found, np.cos(host) * np.sin(h) / h, rtol=0, atol=1e-11)


def test_gradient_may_come_from_a_python_float(backend):
    x = backend.asarray(draw(2, 2))
    found = numerical_gradient(lambda: float(x[0, 1]) * 3, x)
    np.testing.assert_allclose(found, [[0, 3], [0, 0]], rtol=0, atol=1e-10)  # rounding / h


def test_gradient_is_float64_of_the_shape_of_the_array(backend):
    for shape in ((), (3,), (2, 1, 4), (0, 2)):
        x = backend.asarray(np.asarray(draw(*shape), np.float32))
        found = numerical_gradient(lambda x=x: 0.5, x)
        assert found.shape == shape
        assert found.dtype == np.float64
        assert not found.any()


def test_only_one_element_is_moved_at_a_time_by_plus_and_minus_h(backend):
    host = draw(2, 3)
    x = backend.asarray(host.copy())
    seen = []
    numerical_gradient(lambda: seen.append(backend.to_numpy(x) - host) or 0.0, x, h=0.25)
    assert len(seen) == 12
    for i, moved in enumerate(seen):
        expected = np.zeros(6)
        expected[i // 2] = -0.25 if i % 2 else 0.25
        np.testing.assert_allclose(moved.ravel(), expected, rtol=0, atol=1e-15)  # the rounding of a + h - a


def test_an_array_that_cannot_be_moved_element_by_element_is_refused():
    fixed = draw(3)
    fixed.flags.writeable = False
    shared = np.lib.stride_tricks.as_strided(draw(1), (3,), (0,))
    for array, reason in ((fixed, "writeable"), (shared, "overlap itself")):
        with pytest.raises(ValueError, match=f"array must .*{reason}"):
            numerical_gradient(lambda: 0.0, array)


def test_array_is_put_back_bit_by_bit(backend):
    host = draw(4, 3)
    x = backend.asarray(host.copy())
    numerical_gradient(lambda: backend.xp.sum(x**3), x)
    assert backend.to_numpy(x).tobytes() == host.tobytes()


@pytest.mark.parametrize("call", [1, 2, 5])
def test_array_is_put_back_where_the_function_raises(backend, call):
    host = draw(2, 2)
    x = backend.asarray(host.copy())
    calls = []

    def f():
        calls.append(None)
        if len(calls) == call:
            raise KeyError("on purpose")
        return backend.xp.sum(x)

    with pytest.raises(KeyError, match="on purpose"):
        numerical_gradient(f, x)
    assert len(calls) == call
    assert backend.to_numpy(x).tobytes() == host.tobytes()


def test_array_is_put_back_where_the_user_interrupts(backend):
    host = draw(2)
    x = backend.asarray(host.copy())

    def f():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(f, x)
    assert backend.to_numpy(x).tobytes() == host.tobytes()


def test_a_strided_view_is_moved_in_place():
    base = draw(4, 6)
    view = base[::2, ::3]
    before = base.copy()
    found = numerical_gradient(lambda: np.sum(base**2), view)
    np.testing.assert_allclose(found, 2 * before[::2, ::3], rtol=0, atol=1e-9)  # rounding / h
    np.testing.assert_array_equal(base, before)


def test_what_is_no_array_of_a_backend_is_refused():
    with pytest.raises(TypeError, match="list"):
        numerical_gradient(lambda: 0.0, [1.0, 2.0])
