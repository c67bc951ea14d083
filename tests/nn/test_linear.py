import numpy as np
import pytest
from small_layers import ROUNDING, check_gradients, draw, host_params, linear, on

from bnkit import Linear, get_backend


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7])
def test_linear_is_a_product_and_a_sum(backend, bias, rows):
    layer, x = linear(backend, bias=bias), draw(rows, 5)
    p = host_params(backend, layer)
    y, _ = layer.forward(on(backend, x), train=True)
    np.testing.assert_allclose(backend.to_numpy(y), x @ p["weight"] + p.get("bias", 0.0), **ROUNDING)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_linear_of_replicas_is_each_replicas_own(backend, bias, shared):
    layer = linear(backend, bias=bias, replicas=3, seed=[0, 1, 2])
    x = draw(7, 5) if shared else draw(3, 7, 5)
    p = host_params(backend, layer)
    y, _ = layer.forward(on(backend, x), train=True)
    assert tuple(y.shape) == (3, 7, 3)
    for r in range(3):
        expected = (x if shared else x[r]) @ p["weight"][r] + (p["bias"][r] if bias else 0.0)
        np.testing.assert_allclose(backend.to_numpy(y)[r], expected, **ROUNDING)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("replicas", "shape"), [(None, (7, 5)), (None, (1, 5)), (3, (7, 5)), (3, (3, 7, 5))])
def test_gradients_of_linear_meet_central_differences(backend, bias, replicas, shape):
    layer = linear(backend, bias=bias, replicas=replicas, seed=4)
    check_gradients(backend, layer, draw(*shape))


def test_linear_without_bias_has_only_its_weight(backend):
    assert list(linear(backend, bias=False).params) == ["weight"]
    assert list(linear(backend).params) == ["weight", "bias"]


@pytest.mark.parametrize(("replicas", "shape"), [(None, (7, 5)), (2, (7, 5)), (2, (2, 7, 5))])
def test_linear_can_leave_the_gradient_of_its_input_out(backend, replicas, shape):
    layer = linear(backend, replicas=replicas)
    y, cache = layer.forward(on(backend, draw(*shape)), train=True)
    dy = on(backend, draw(*y.shape, seed=1))
    alone, full = layer.gradients(dy, cache), layer.backward(dy, cache)[1]
    assert alone.keys() == full.keys()
    for name in full:
        np.testing.assert_array_equal(backend.to_numpy(alone[name]), backend.to_numpy(full[name]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_keeps_the_dtype(backend, dtype):
    layer = Linear(5, 3, backend=backend, dtype=dtype)
    y, cache = layer.forward(on(backend, draw(2, 5, dtype=dtype)), train=True)
    dx, grads = layer.backward(y, cache)
    assert {a.dtype for a in (y, dx, *grads.values())} == {layer.params["weight"].dtype}
    assert str(backend.to_numpy(y).dtype) == dtype


@pytest.mark.parametrize("shape", [(5,), (7, 4), (7, 6), ()])
def test_linear_refuses_an_input_of_another_width(backend, shape):
    with pytest.raises(ValueError, match=r"x must be \(rows, 5\)"):
        linear(backend).forward(on(backend, np.asarray(draw(*shape))), train=True)


def test_linear_refuses_another_number_of_replicas(backend):
    with pytest.raises(ValueError):
        linear(backend, replicas=2).forward(on(backend, draw(3, 7, 5)), train=True)


def test_linear_without_replicas_refuses_an_input_with_them(backend):
    with pytest.raises(ValueError, match="x must be"):
        linear(backend).forward(on(backend, draw(2, 7, 5)), train=True)


def test_linear_refuses_integers(backend):
    with pytest.raises(TypeError):
        linear(backend).forward(on(backend, np.arange(10).reshape(2, 5)), train=True)


def test_linear_refuses_an_array_of_another_backend(backend):
    foreign = get_backend("strict" if backend.name == "numpy" else "numpy")
    with pytest.raises(TypeError):
        linear(backend).forward(foreign.asarray(draw(7, 5)), train=True)


def test_linear_refuses_a_list(backend):
    with pytest.raises(TypeError):
        linear(backend).forward([[1.0, 2.0, 3.0, 4.0, 5.0]], train=True)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((0, 3), {}, ValueError, "inputs"),
        ((3, 0), {}, ValueError, "outputs"),
        ((3.0, 2), {}, TypeError, "inputs"),
        ((True, 2), {}, TypeError, "inputs"),
        ((3, "2"), {}, TypeError, "outputs"),
        ((3, 2), {"dtype": "float16"}, ValueError, "dtype.*float16"),
        ((3, 2), {"dtype": "int64"}, ValueError, "dtype.*int64"),
        ((3, 2), {"replicas": 0}, ValueError, "replicas"),
        ((3, 2), {"replicas": 1.5}, TypeError, "replicas"),
    ],
)
def test_linear_refuses_options_that_cannot_be(arguments, options, error, says):
    with pytest.raises(error, match=says):
        Linear(*arguments, backend="numpy", **options)
