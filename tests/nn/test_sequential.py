import numpy as np
import pytest
from small_layers import KEY, ROUNDING, check_gradients, draw, host_params, linear, network, on
from small_mlp import host

from bnkit import BatchNorm, Dropout, ReLU, Sequential, Tanh


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


def test_dropouts_draw_by_their_place_among_all_layers(backend):
    x = backend.asarray(np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32) + 9)
    deep = Sequential(Dropout(0.5))
    for _ in range(20):
        deep = Sequential(deep)
    network = Sequential(deep, *[ReLU()] * 300, Dropout(0.5))
    _, caches = network.forward(x, train=True, key=(1, 0, 2))
    first = caches[0]
    while isinstance(first, list):
        first = first[0]
    for mask, place in ((first, 0), (caches[-1], 301)):
        drawn = backend.to_numpy(backend.uniform((1, place, 2), (50, 40))) >= 0.5
        np.testing.assert_array_equal(backend.to_numpy(mask) > 0, drawn)


@pytest.mark.parametrize("wrong", [1, [ReLU()], None])
def test_what_is_no_layer_is_refused(wrong):
    with pytest.raises(TypeError, match="layers must"):
        Sequential(wrong)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_train_must_be_a_bool(backend, wrong):
    with pytest.raises(TypeError, match="train must"):
        Sequential(ReLU()).forward(backend.asarray(np.ones((2, 2), np.float32)), train=wrong)


@pytest.mark.parametrize("train", [True, False])
def test_relu_in_the_pass_of_the_batch_norm_before_it_is_the_relu_after_it(backend, train):
    x, dy = on(backend, draw(9, 5)), on(backend, draw(9, 5, seed=1))
    together, apart = (
        Sequential(BatchNorm(5, backend=backend, dtype="float64"), ReLU(), linear(backend)) for _ in range(2)
    )
    y, cache = together.forward(x, train=train)
    dx, grads = together.backward(y, cache)
    normalized, norm_cache = apart.layers[0].forward(x, train=train)
    hidden, relu_cache = apart.layers[1].forward(normalized, train=train)
    expected, linear_cache = apart.layers[2].forward(hidden, train=train)
    dy, linear_grads = apart.layers[2].backward(expected, linear_cache)
    dy, _ = apart.layers[1].backward(dy, relu_cache)
    expected_dx, norm_grads = apart.layers[0].backward(dy, norm_cache)
    expected_grads = {f"0.{k}": g for k, g in norm_grads.items()} | {f"2.{k}": g for k, g in linear_grads.items()}
    np.testing.assert_allclose(backend.to_numpy(y), backend.to_numpy(expected), **ROUNDING)
    np.testing.assert_allclose(backend.to_numpy(dx), backend.to_numpy(expected_dx), **ROUNDING)
    assert list(grads) == list(expected_grads)
    for name, g in expected_grads.items():
        np.testing.assert_allclose(backend.to_numpy(grads[name]), backend.to_numpy(g), **ROUNDING)
    moved, expected_state = host(backend, together.state), host(backend, apart.layers[0].state)
    for name, a in expected_state.items():
        np.testing.assert_array_equal(moved[f"0.{name}"], a)


def test_a_batch_norm_with_its_relu_keeps_its_own_option(backend):
    norm = BatchNorm(5, backend=backend, dtype="float64")
    Sequential(norm, ReLU()).forward(on(backend, draw(9, 5)), train=True)
    assert norm.activation is None
    y, _ = norm.forward(on(backend, draw(9, 5)), train=True)
    assert backend.to_numpy(y).min() < 0
