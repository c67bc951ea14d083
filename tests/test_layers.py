import copy
import math
import pickle

import numpy as np
import pytest

from bnkit import BatchNorm, Dropout, Linear, ReLU, Sequential, Sigmoid, Tanh, get_backend
from bnkit.gradcheck import numerical_gradient

KEY = (3, 0, 7)
# Central differences with h = 1e-4: h²/6 of a third derivative of order 1, and 1e-16 |f| / h; values are of order 1.
GRADIENT = {"rtol": 0, "atol": 1e-7}
# A handful of float64 roundings, which each library may order in its own way.
ROUNDING = {"rtol": 1e-13, "atol": 1e-13}


def draw(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def on(backend, host: np.ndarray):
    return backend.asarray(host.copy())


def host_params(backend, layer) -> dict[str, np.ndarray]:
    return {name: backend.to_numpy(p).copy() for name, p in layer.params.items()}


def linear(backend, inputs=5, outputs=3, **options) -> Linear:
    """A Linear whose bias is not zero."""
    layer = Linear(inputs, outputs, init=0.7, backend=backend, dtype="float64", **options)
    if "bias" in layer.params:
        layer.params["bias"][...] = backend.asarray(draw(*layer.params["bias"].shape, seed=99))
    return layer


def network(backend, replicas=None) -> Sequential:
    """One of each layer, in float64."""
    features, axis = (4, 1) if replicas is None else ((replicas, 4), (0, 2))
    return Sequential(
        linear(backend, 5, 4, replicas=replicas),
        BatchNorm(features, axis=axis, backend=backend, dtype="float64"),
        Sigmoid(),
        Dropout(0.3),
        linear(backend, 4, 3, replicas=replicas, layer=1),
        Tanh(),
    )


def check_gradients(backend, layer, x: np.ndarray, *, key=None) -> None:
    """The backward of `layer` against central differences of the sum of its output, weighed by a random dy."""
    x = on(backend, x)
    y, cache = layer.forward(x, train=True, key=key)
    dy = on(backend, draw(*y.shape, seed=50))

    def f():
        return backend.xp.sum(layer.forward(x, train=True, key=key)[0] * dy)

    dx, grads = layer.backward(dy, cache)
    assert tuple(dx.shape) == tuple(x.shape)
    np.testing.assert_allclose(backend.to_numpy(dx), numerical_gradient(f, x), **GRADIENT)
    assert grads.keys() == layer.params.keys()
    for name, p in layer.params.items():
        np.testing.assert_allclose(backend.to_numpy(grads[name]), numerical_gradient(f, p), err_msg=name, **GRADIENT)


# Linear


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


@pytest.mark.parametrize("shape", [(5,), (7, 4), (7, 6), (5, 7), ()])
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


# Activations

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


@pytest.mark.parametrize("layer", [ReLU(), Sigmoid(), Tanh(), Dropout(0.5)])
def test_a_list_is_refused(layer):
    with pytest.raises(TypeError, match="list"):
        layer.forward([[1.0, -1.0]], train=True, key=KEY)


# Dropout


def kept(backend, key, shape=(40, 50), ratio=0.3) -> np.ndarray:
    ones = on(backend, np.ones(shape))
    return backend.to_numpy(Dropout(ratio).forward(ones, train=True, key=key)[0]) != 0


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(backend, ratio):
    x = draw(300, 200)
    y = backend.to_numpy(Dropout(ratio).forward(on(backend, x), train=True, key=KEY)[0])
    dropped = y == 0
    # The share of n independent draws scatters by √(p (1 - p) / n).
    assert dropped.mean() == pytest.approx(ratio, abs=5 * math.sqrt(ratio * (1 - ratio) / x.size))
    np.testing.assert_allclose(y[~dropped], x[~dropped] / (1 - ratio), rtol=1e-15)  # two roundings


def test_dropout_keeps_the_expectation(backend):
    x = np.ones((300, 200))
    y = backend.to_numpy(Dropout(0.25).forward(on(backend, x), train=True, key=KEY)[0])
    # An element is 4/3 with probability 3/4, else 0: its variance is 1/3.
    assert y.mean() == pytest.approx(1, abs=5 * math.sqrt(1 / 3 / x.size))


def test_dropout_draws_each_row_and_column_for_itself(backend):
    mask = kept(backend, KEY, (400, 400))
    # The mean of 400 draws scatters by √(.21 / 400) = .023; six of those, for 800 means.
    for axis in (0, 1):
        np.testing.assert_allclose(mask.mean(axis), 0.7, rtol=0, atol=6 * 0.023)
    assert len(np.unique(mask, axis=0)) == len(np.unique(mask, axis=1)) == 400


def test_gradient_of_dropout_goes_where_the_values_went(backend):
    x, dy = draw(30, 20), draw(30, 20, seed=1)
    layer = Dropout(0.4)
    y, cache = layer.forward(on(backend, x), train=True, key=KEY)
    dx, grads = layer.backward(on(backend, dy), cache)
    np.testing.assert_allclose(backend.to_numpy(dx), dy * (backend.to_numpy(y) / x), **ROUNDING)
    assert grads == {}


def test_gradient_of_dropout_meets_central_differences(backend):
    check_gradients(backend, Dropout(0.4), draw(5, 4), key=KEY)


def test_dropout_mask_is_a_function_of_its_key_alone(backend):
    first = kept(backend, KEY)
    kept(backend, (9, 9, 9))  # a draw in between
    np.testing.assert_array_equal(kept(backend, KEY), first)
    values = Dropout(0.3).forward(on(backend, draw(40, 50)), train=True, key=KEY)[0]
    np.testing.assert_array_equal(backend.to_numpy(values) != 0, first)


@pytest.mark.parametrize("other", [(4, 0, 7), (3, 1, 7), (3, 0, 8)])
def test_dropout_mask_differs_by_seed_layer_and_step(backend, other):
    agree = (kept(backend, KEY) == kept(backend, other)).mean()
    # Independent masks agree with probability .7² + .3² = .58; the share of 2,000 scatters by .011.
    assert agree == pytest.approx(0.58, abs=5 * 0.011)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_is_the_same_on_every_backend(backend, dtype):
    x = draw(13, 17, dtype=dtype)
    ours, numpys = (Dropout(0.3).forward(on(b, x), train=True, key=KEY)[0] for b in (backend, get_backend("numpy")))
    assert backend.to_numpy(ours).tobytes() == numpys.tobytes()
    assert str(numpys.dtype) == dtype


def test_dropout_of_replicas_is_that_of_their_seeds(backend):
    x = draw(3, 13, 17)
    together = backend.to_numpy(Dropout(0.3).forward(on(backend, x), train=True, key=([5, 6, 5], 2, 1))[0])
    for r, seed in enumerate((5, 6, 5)):
        alone = Dropout(0.3).forward(on(backend, x[r]), train=True, key=(seed, 2, 1))[0]
        np.testing.assert_array_equal(together[r], backend.to_numpy(alone))


def test_dropout_is_the_identity_in_inference(backend):
    x = draw(7, 5)
    y, cache = Dropout(0.5).forward(on(backend, x), train=False)
    np.testing.assert_array_equal(backend.to_numpy(y), x)
    dx, _ = Dropout(0.5).backward(on(backend, x), cache)
    np.testing.assert_array_equal(backend.to_numpy(dx), x)


def test_dropout_of_ratio_zero_keeps_everything_and_needs_no_key(backend):
    x = draw(7, 5)
    y, _ = Dropout(0.0).forward(on(backend, x), train=True)
    np.testing.assert_array_equal(backend.to_numpy(y), x)


def test_dropout_needs_a_key_to_train(backend):
    with pytest.raises(ValueError, match="key must be"):
        Dropout(0.5).forward(on(backend, draw(7, 5)), train=True)


@pytest.mark.parametrize(
    ("ratio", "error"),
    [
        (1.0, ValueError),
        (-0.1, ValueError),
        (1.5, ValueError),
        (math.nan, ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_dropout_refuses_a_ratio_that_is_no_probability_below_one(ratio, error):
    with pytest.raises(error, match="ratio"):
        Dropout(ratio)


# Sequential


def test_sequential_is_its_layers_one_after_the_other(backend):
    first, second = linear(backend), linear(backend, 3, 2, layer=1)
    x, dy = draw(7, 5), draw(7, 2, seed=1)
    p, q = host_params(backend, first), host_params(backend, second)
    hidden = np.tanh(x @ p["weight"] + p["bias"])
    together = Sequential(first, Tanh(), second)
    y, cache = together.forward(on(backend, x), train=True)
    dx, grads = together.backward(on(backend, dy), cache)
    np.testing.assert_allclose(backend.to_numpy(y), hidden @ q["weight"] + q["bias"], **ROUNDING)
    dhidden = (dy @ q["weight"].T) * (1 - hidden**2)
    expected = {
        "0.weight": x.T @ dhidden,
        "0.bias": dhidden.sum(0),
        "2.weight": hidden.T @ dy,
        "2.bias": dy.sum(0),
    }
    assert list(grads) == list(expected)
    for name in expected:
        np.testing.assert_allclose(backend.to_numpy(grads[name]), expected[name], **ROUNDING)
    np.testing.assert_allclose(backend.to_numpy(dx), dhidden @ p["weight"].T, **ROUNDING)


@pytest.mark.parametrize(("replicas", "shape"), [(None, (7, 5)), (2, (7, 5)), (2, (2, 7, 5))])
def test_gradients_of_a_network_meet_central_differences(backend, replicas, shape):
    key = (3 if replicas is None else [3, 4], 0, 7)
    check_gradients(backend, network(backend, replicas), draw(*shape), key=key)


def test_params_and_state_are_named_by_position_and_are_the_layers_own_arrays(backend):
    net = network(backend)
    assert list(net.params) == ["0.weight", "0.bias", "1.gamma", "1.beta", "4.weight", "4.bias"]
    assert list(net.state) == ["1.running_mean", "1.running_var", "1.count"]
    assert net.params["1.gamma"] is net.layers[1].params["gamma"]
    assert net.state["1.running_mean"] is net.layers[1].state["running_mean"]


def test_nested_names_have_one_number_a_level(backend):
    net = Sequential(ReLU(), Sequential(linear(backend), Sequential(Tanh(), linear(backend, 3, 2, bias=False))))
    assert list(net.params) == ["1.0.weight", "1.0.bias", "1.1.1.weight"]
    y, cache = net.forward(on(backend, draw(4, 5)), train=True)
    assert list(net.backward(y, cache)[1]) == list(net.params)


def test_every_dropout_of_a_nested_network_draws_for_itself(backend):
    x = on(backend, np.ones((40, 50)))
    masks = []

    class Watched(Dropout):
        def forward(self, x, *, train, key=None):
            y, cache = super().forward(on(backend, np.ones((40, 50))), train=train, key=key)
            masks.append(backend.to_numpy(y).tobytes())
            return y, cache

    inner = [Sequential(Watched(), Watched(), Sequential(Watched(), Watched())) for _ in range(3)]
    Sequential(Watched(), *inner, Watched()).forward(x, train=True, key=KEY)
    assert len(masks) == 14
    assert len(set(masks)) == 14


def test_dropout_inside_a_network_needs_a_key_too(backend):
    with pytest.raises(ValueError, match="key must be"):
        network(backend).forward(on(backend, draw(7, 5)), train=True)


def test_inference_needs_no_key_and_moves_no_state(backend):
    net = network(backend)
    before = {name: backend.to_numpy(a).tobytes() for name, a in net.state.items()}
    y = [backend.to_numpy(net.forward(on(backend, draw(7, 5)), train=False)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*y)
    assert {name: backend.to_numpy(a).tobytes() for name, a in net.state.items()} == before


@pytest.mark.parametrize("first", ["linear", "relu", "nested"])
def test_gradients_alone_are_those_of_the_backward(backend, first):
    layers = {
        "linear": [linear(backend)],
        "relu": [ReLU(), linear(backend)],
        "nested": [Sequential(linear(backend), Tanh())],
    }[first]
    net = Sequential(*layers, Tanh(), linear(backend, 3, 2))
    y, cache = net.forward(on(backend, draw(7, 5)), train=True)
    dy = on(backend, draw(*y.shape, seed=1))
    alone, full = net.gradients(dy, cache), net.backward(dy, cache)[1]
    assert list(alone) == list(full) == list(net.params)
    for name in full:
        np.testing.assert_array_equal(backend.to_numpy(alone[name]), backend.to_numpy(full[name]))


def test_a_network_of_no_layers_is_refused():
    with pytest.raises(ValueError, match="layers must be at least one"):
        Sequential()


# What every layer keeps


LAYERS = {
    "linear": (linear, (7, 5)),
    "replicas": (lambda b: linear(b, replicas=2), (2, 7, 5)),
    "relu": (lambda b: ReLU(), (7, 5)),
    "sigmoid": (lambda b: Sigmoid(), (7, 5)),
    "tanh": (lambda b: Tanh(), (7, 5)),
    "dropout": (lambda b: Dropout(0.5), (7, 5)),
    "network": (network, (7, 5)),
}


@pytest.fixture(params=LAYERS)
def layer_and_shape(request, backend):
    make, shape = LAYERS[request.param]
    return make(backend), shape


def test_inputs_are_left_untouched(backend, layer_and_shape):
    layer, shape = layer_and_shape
    host = draw(*shape)
    x = on(backend, host)
    y, cache = layer.forward(x, train=True, key=KEY)
    host_dy = draw(*y.shape, seed=1)
    dy = on(backend, host_dy)
    layer.backward(dy, cache)
    layer.forward(x, train=False)
    np.testing.assert_array_equal(backend.to_numpy(x), host)
    np.testing.assert_array_equal(backend.to_numpy(dy), host_dy)


def test_params_are_left_untouched_by_forward_and_backward(backend, layer_and_shape):
    layer, shape = layer_and_shape
    before = host_params(backend, layer)
    y, cache = layer.forward(on(backend, draw(*shape)), train=True, key=KEY)
    layer.backward(y, cache)
    for name, p in host_params(backend, layer).items():
        np.testing.assert_array_equal(p, before[name])


def test_two_forwards_may_be_in_flight(backend, layer_and_shape):
    layer, shape = layer_and_shape
    xs = [on(backend, draw(*shape, seed=s)) for s in (0, 1)]
    alone = []
    for x in xs:
        y, cache = layer.forward(x, train=True, key=KEY)
        alone.append(layer.backward(y, cache))
    together = [layer.forward(x, train=True, key=KEY) for x in xs]
    for (y, cache), (dx, grads) in zip(together, alone, strict=True):
        for _ in range(2):  # a cache serves any number of backwards
            again, grads_again = layer.backward(y, cache)
            np.testing.assert_array_equal(backend.to_numpy(again), backend.to_numpy(dx))
            for name in grads:
                np.testing.assert_array_equal(backend.to_numpy(grads_again[name]), backend.to_numpy(grads[name]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_does_the_same_and_shares_no_array(backend, layer_and_shape, copied):
    layer, shape = layer_and_shape
    x = on(backend, draw(*shape))
    layer.forward(x, train=True, key=KEY)
    twin = copied(layer)
    arrays, copies = {**layer.params, **layer.state}, {**twin.params, **twin.state}
    before = {name: backend.to_numpy(a).tobytes() for name, a in arrays.items()}
    assert {name: backend.to_numpy(a).tobytes() for name, a in copies.items()} == before
    y, expected = (net.forward(x, train=False)[0] for net in (twin, layer))
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))
    for a in copies.values():
        a[...] = a + 1
    assert {name: backend.to_numpy(a).tobytes() for name, a in {**layer.params, **layer.state}.items()} == before
