"""The tutorial's MultiLayerNetExtend against its formulas."""

import copy
import pickle

import numpy as np
import pytest
import textbook_tutorial as textbook
from numpy.testing import assert_allclose, assert_array_equal
from tutorial_pairs import CLOSE, NETWORKS, assert_same_entries, batch, build_both

from bnkit import tutorial


@pytest.fixture
def random():
    return np.random.default_rng(20)


@pytest.mark.parametrize(("scale", "number"), [("relu", 2.0), ("He", 2.0), ("sigmoid", 1.0), ("XAVIER", 1.0)])
def test_a_named_scale_is_the_root_of_its_gain_over_the_inputs(scale, number):
    np.random.seed(5)
    params = tutorial.MultiLayerNetExtend(30, [20], 10, weight_init_std=scale).params
    np.random.seed(5)
    # A division, a root and a product, each rounded once on both sides.
    assert_allclose(params["W1"], np.sqrt(number / 30) * np.random.randn(30, 20), rtol=1e-15)
    assert_allclose(params["W2"], np.sqrt(number / 20) * np.random.randn(20, 10), rtol=1e-15)


def test_layers_use_the_arrays_of_params():
    network, _ = build_both(use_batchnorm=True, use_dropout=True)
    assert list(network.layers) == [
        *("Affine1", "BatchNorm1", "Activation_function1", "Dropout1"),
        *("Affine2", "BatchNorm2", "Activation_function2", "Dropout2", "Affine3"),
    ]
    assert network.hidden_layer_num == 2
    assert network.layers["Affine3"].W is network.params["W3"]
    assert network.layers["Affine1"].b is network.params["b1"]
    assert network.layers["BatchNorm2"].gamma is network.params["gamma2"]
    assert network.layers["BatchNorm1"].beta is network.params["beta1"]


def test_a_network_without_hidden_layers_is_one_affine(random):
    network = tutorial.MultiLayerNetExtend(6, [], 4, use_batchnorm=True, use_dropout=True)
    assert list(network.layers) == ["Affine1"]
    assert set(network.gradient(*batch(random))) == set(network.params) == {"W1", "b1"}


def test_integer_and_one_hot_labels_give_the_same(random):
    network, _ = build_both(use_batchnorm=True)
    x, t = batch(random)
    one_hot = np.eye(4)[t]
    assert network.loss(x, t) == network.loss(x, one_hot)
    assert network.accuracy(x, t) == network.accuracy(x, one_hot)
    assert_same_entries(network.gradient(x, t), network.gradient(x, one_hot))
    assert_same_entries(network.gradient(x, t.astype(np.uint8)), network.gradient(x, one_hot.astype(np.uint8)))


def test_labels_that_are_probabilities_count_whole_in_the_gradient_and_by_their_largest_in_the_loss(random):
    ours, expected = build_both()
    x, t = batch(random)[0], random.dirichlet(np.ones(4), 9)
    assert_allclose(ours.loss(x, t), expected.loss(x, t), **CLOSE)
    assert_same_entries(ours.gradient(x, t), expected.gradient(x, t))


def test_the_loss_adds_1e_7_and_its_gradient_does_not():
    network = tutorial.MultiLayerNetExtend(1, [], 2, weight_init_std=0.0)
    network.params["b1"][:] = 0, 100
    x, t = np.ones((1, 1)), np.array([0])
    # The softmax of the label is exp(-100) = 4e-44, and float64 rounds the rest.
    assert_allclose(network.loss(x, t), -np.log(1e-7), rtol=1e-12)
    assert_allclose(network.gradient(x, t)["b1"], [-1, 1], rtol=1e-12)


def test_images_in_four_dimensions_enter_the_network_flat(random):
    network, _ = build_both(use_batchnorm=True)
    x, t = batch(random)
    images = x.reshape(9, 1, 2, 3)
    assert_array_equal(network.predict(images), network.predict(x))
    assert_same_entries(network.gradient(images, t), network.gradient(x, t))


@pytest.mark.parametrize("options", [v for v in NETWORKS.values() if "use_dropout" not in v])
def test_the_numerical_gradient_agrees_with_the_gradient(random, options):
    network, expected = build_both(**options)
    x, t = batch(random)
    numerical = network.numerical_gradient(x, t)
    # Rounding gives 1e-16 / h = 1e-12, curvature h² times the third derivative, 1e-8 times some tens in batch norm,
    # and the 1e-7 that only the loss has weighs 1e-7 / softmax.
    for key, value in network.gradient(x, t).items():
        assert_allclose(numerical[key], value, rtol=0, atol=3e-6, err_msg=key)
    # Two losses that agree to 1e-15, divided by 2e-4.
    for key, value in expected.numerical_gradient(x, t).items():
        assert_allclose(numerical[key], value, rtol=0, atol=1e-10, err_msg=key)


def test_the_numerical_gradient_restores_the_parameters_and_moves_the_running_arrays(random):
    networks = build_both(use_batchnorm=True)
    x, t = batch(random)
    before = copy.deepcopy(networks[0].params)
    for network in networks:
        network.numerical_gradient(x, t)
    for key, value in before.items():
        assert_array_equal(networks[0].params[key], value)
    means = [network.layers["BatchNorm1"].running_mean for network in networks]
    assert_allclose(*means, **CLOSE)


def test_a_diverging_network_gives_the_tutorials_nan_without_a_warning(random):
    x, t = batch(random)
    networks = build_both(weight_init_std=1e200, weight_decay_lambda=1.0)
    for _ in range(2):
        assert_array_equal(*(network.layers["Affine1"].W for network in networks))
        tutorial.SGD().update(networks[0].params, networks[0].gradient(x, t))
        with np.errstate(all="ignore"):
            textbook.SGD().update(networks[1].params, networks[1].gradient(x, t))
            expected = networks[1].predict(x)
        assert np.isnan(expected).any()
        assert_array_equal(networks[0].predict(x), expected)
        assert networks[0].accuracy(x, t) == networks[1].accuracy(x, t)
        assert np.isnan(networks[0].loss(x, t))


def test_relu_passes_nan_and_stops_an_infinite_gradient_where_x_is_not_positive():
    relu = tutorial.MultiLayerNetExtend(3, [3], 2).layers["Activation_function1"]
    assert_array_equal(relu.forward(np.array([[-1.0, -np.inf, 2.0, np.nan]])), [[0, 0, 2, np.nan]])
    assert_array_equal(relu.backward(np.array([[np.inf, np.inf, 3.0, 4.0]])), [[0, 0, 3, 4]])


def test_networks_and_optimizers_survive_copy_and_pickle(random):
    network, _ = build_both(use_batchnorm=True, use_dropout=True)
    rule = tutorial.Adam()
    rule.update(network.params, network.gradient(*batch(random)))
    x, t = batch(random)
    grads = []
    for twin, twins_rule in (
        copy.deepcopy((network, rule)),
        pickle.loads(pickle.dumps((network, rule))),
        (network, rule),
    ):
        np.random.seed(1)
        twins_rule.update(twin.params, twin.gradient(x, t))
        grads.append(twin.gradient(x, t))
        assert twin.layers["Affine1"].W is twin.params["W1"]
    assert_same_entries(grads[0], grads[2])
    assert_same_entries(grads[1], grads[2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation": "tanh"}, ValueError, "activation must be 'relu' or 'sigmoid', got 'tanh'"),
        ({"weight_init_std": "normal"}, ValueError, "weight_init_std must be one of .* got 'normal'"),
        ({"weight_init_std": None}, TypeError, "weight_init_std must be a number, got None"),
        ({"weight_init_std": float("nan")}, ValueError, "weight_init_std must be a finite number, got nan"),
        ({"weight_decay_lambda": "0.1"}, TypeError, "weight_decay_lambda must be a number, got '0.1'"),
        ({"dropout_ration": 1.5}, ValueError, r"dropout_ration must lie in \[0, 1\], got 1.5"),
        ({"input_size": 0}, ValueError, "input_size must be at least 1, got 0"),
        ({"output_size": 2.5}, TypeError, "output_size must be an int, got 2.5"),
        ({"hidden_size_list": [8, -1]}, ValueError, "hidden_size_list must be at least 1, got -1"),
        ({"hidden_size_list": 8}, TypeError, "hidden_size_list must be a sequence of ints, got 8"),
    ],
)
def test_a_network_is_not_built_from_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        tutorial.MultiLayerNetExtend(**({"input_size": 6, "hidden_size_list": [8], "output_size": 4} | options))


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (np.ones((3, 5)), [0, 1, 2], ValueError, r"x must be \(N, 6\).* got \(3, 5\)"),
        (np.ones(6), [0], ValueError, r"x must be \(N, 6\).* got \(6,\)"),
        (np.ones((3, 6), complex), [0, 1, 2], TypeError, "x must hold real numbers, got complex128"),
        (np.ones((3, 6)), [0, 1], ValueError, r"t must be labels \(3,\) or one-hot \(3, 4\), got \(2,\)"),
        (np.ones((3, 6)), [[0], [1], [2]], ValueError, r"t must be labels .* got \(3, 1\)"),
        (np.ones((3, 6)), [0.0, 1.0, 2.0], TypeError, "t must hold integer labels, got float64"),
        (np.ones((3, 6)), [0, 1, 4], ValueError, "t must hold labels from 0 to 3, got 0 to 4"),
        (np.ones((3, 6)), [-1, 1, 2], ValueError, "t must hold labels from 0 to 3, got -1 to 2"),
        (np.ones((3, 6)), ["a", "b", "c"], TypeError, "t must hold real numbers"),
    ],
)
@pytest.mark.parametrize("method", ["loss", "gradient", "accuracy"])
def test_bad_data_is_refused(method, x, t, error, message):
    network, _ = build_both()
    with pytest.raises(error, match=message):
        getattr(network, method)(x, t)
