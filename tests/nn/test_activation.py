import numpy as np
import pytest
from small_layers import ROUNDING, check_gradients, draw, on

from bnkit import ReLU, Sigmoid, Tanh

ACTIVATIONS = [
    (ReLU, lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)),
    (Sigmoid, lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    (Tanh, np.tanh, lambda x: 1 / np.cosh(x) ** 2),
]


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (2, 7, 5)])
@pytest.mark.parametrize(("activation", "function", "derivative"), ACTIVATIONS)
def test_activation_and_its_gradient_are_the_textbooks(backend, activation, function, derivative, shape):
    x, dy = 3 * draw(*shape), draw(*shape, seed=1)
    for train in (True, False):
        y, cache = activation().forward(on(backend, x), train=train)
        dx, grads = activation().backward(on(backend, dy), cache)
        np.testing.assert_allclose(backend.to_numpy(y), function(x), **ROUNDING)
        np.testing.assert_allclose(backend.to_numpy(dx), dy * derivative(x), **ROUNDING)
        assert grads == {}


@pytest.mark.parametrize("activation", [ReLU, Sigmoid, Tanh])
def test_gradient_of_an_activation_meets_central_differences(backend, activation):
    x = draw(7, 5)
    assert np.abs(x).min() > 1e-3  # no step of h crosses the corner of the ReLU
    check_gradients(backend, activation(), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "low", "high"), [(ReLU, 0, None), (Sigmoid, 0, 1), (Tanh, -1, 1)])
def test_extreme_inputs_reach_the_limits_without_a_warning(backend, activation, low, high, dtype):
    x = np.array([[-np.inf, -3e38, -1e4, 1e4, 3e38, np.inf]], dtype)
    y, cache = activation().forward(on(backend, x), train=True)
    dx, _ = activation().backward(on(backend, np.ones_like(x)), cache)
    expected = np.where(x < 0, low, x if high is None else high).astype(dtype)
    np.testing.assert_array_equal(backend.to_numpy(y), expected)
    slope = (x > 0).astype(dtype) if activation is ReLU else np.zeros_like(x)
    np.testing.assert_array_equal(backend.to_numpy(dx), slope)
    assert str(backend.to_numpy(y).dtype) == str(backend.to_numpy(dx).dtype) == dtype


def test_sigmoid_of_a_negative_input_keeps_its_digits(backend):
    x = np.array([[-700.0, -300.0, -50.0]])
    y, _ = Sigmoid().forward(on(backend, x), train=True)
    # 1 - sigmoid(-x) would be 0; exp's argument and result each round by 1e-16.
    np.testing.assert_allclose(backend.to_numpy(y), np.exp(x), rtol=1e-15)


@pytest.mark.parametrize("activation", [ReLU, Sigmoid, Tanh])
def test_nan_stays_where_it_is_without_a_warning(backend, activation):
    x = draw(3, 4)
    x[1, 2] = np.nan
    y, _ = activation().forward(on(backend, x), train=True)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(y)), np.isnan(x))


def test_relu_passes_no_gradient_at_zero(backend):
    x = np.array([[0.0, -0.0, 1e-300, -1e-300]])
    _, cache = ReLU().forward(on(backend, x), train=True)
    dx, _ = ReLU().backward(on(backend, np.full_like(x, 5.0)), cache)
    np.testing.assert_array_equal(backend.to_numpy(dx), [[0, 0, 5, 0]])
