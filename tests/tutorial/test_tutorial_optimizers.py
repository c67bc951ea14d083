"""The tutorial's optimizers against their formulas, alone and on its networks."""

import copy

import numpy as np
import pytest
import textbook_tutorial as textbook
from numpy.testing import assert_allclose, assert_array_equal
from tutorial_pairs import CLOSE, NETWORKS, OPTIMIZERS, assert_same_entries, batch, build_both

from bnkit import tutorial


@pytest.fixture
def random():
    return np.random.default_rng(20)


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_seed_gives_the_tutorials_network_and_training(random, options, optimizer):
    networks = build_both(**options)
    ours, expected = networks
    assert list(ours.layers) == list(expected.layers)
    for key in expected.params:
        assert_array_equal(ours.params[key], expected.params[key])
    # A bias before batch norm has gradient 0, computed as some 1e-17, which these rules divide by their 1e-7.
    noisy = options.get("use_batchnorm") and optimizer in ("AdaGrad", "RMSprop", "Adam")
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if noisy else CLOSE
    optimizers = [getattr(module, optimizer)(**OPTIMIZERS[optimizer]) for module in (tutorial, textbook)]
    for step in range(5):
        x, t = batch(random)
        grads = []
        for network, rule in zip(networks, optimizers, strict=True):
            np.random.seed(step)
            grads.append(network.gradient(x, t))
            rule.update(network.params, grads[-1])
        assert_same_entries(*grads, tolerance)
        assert_same_entries(ours.params, expected.params, tolerance)
        assert_allclose(ours.predict(x), expected.predict(x), **tolerance)
        assert_allclose(ours.loss(x, t), expected.loss(x, t), **tolerance)
        assert ours.accuracy(x, t) == expected.accuracy(x, t)
        training_losses = []
        for network in networks:
            np.random.seed(step)
            training_losses.append(network.loss(x, t, train_flg=True))
        assert_allclose(*training_losses, **tolerance)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_with_its_defaults_follows_the_formulas(random, optimizer):
    start = {"W": random.normal(0, 1, (3, 2)), "b": random.normal(0, 1, 2)}
    results = [copy.deepcopy(start), copy.deepcopy(start)]
    rules = [getattr(module, optimizer)() for module in (tutorial, textbook)]
    rules[1].lr = 0.001 if optimizer == "Adam" else 0.01
    for _ in range(6):
        grads = {key: random.normal(0, 1, p.shape) for key, p in start.items()}
        for params, rule in zip(results, rules, strict=True):
            arrays = dict(params)
            rule.update(params, grads)
            assert all(params[key] is arrays[key] for key in params)
        assert_same_entries(*results)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_moves_plain_numbers_too(optimizer):
    results = [{"x": -7.0, "y": 2.0}, {"x": -7.0, "y": 2.0}]
    for params, module in zip(results, (tutorial, textbook), strict=True):
        rule = getattr(module, optimizer)(lr=0.1)
        for _ in range(5):
            rule.update(params, {"x": params["x"] / 10, "y": 2 * params["y"]})
    assert_same_entries(*results)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_nothing_warns_where_numbers_overflow(random, options, optimizer):
    network = tutorial.MultiLayerNetExtend(6, [8, 7], 4, **(options | {"weight_init_std": 1e200}))
    rule = getattr(tutorial, optimizer)(lr=1e200)
    x, t = batch(random)
    for _ in range(3):
        rule.update(network.params, network.gradient(1e150 * x, t))
        network.loss(x, t)
        network.accuracy(x, t)
    assert np.isnan(network.loss(x, t))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_overflows_without_a_warning(optimizer):
    params = {"x": np.full(2, 1e308)}
    rule = getattr(tutorial, optimizer)(lr=10.0)
    for _ in range(2):
        rule.update(params, {"x": np.array([1e308, np.inf])})
    assert not np.isfinite(params["x"]).all()


def test_an_optimizer_refuses_gradients_that_do_not_fit():
    params = {"W": np.ones((2, 3)), "b": np.ones(3)}
    with pytest.raises(ValueError, match="grads must have the keys of params, got none for 'b'"):
        tutorial.SGD().update(params, {"W": np.ones((2, 3))})
    with pytest.raises(ValueError, match=r"grads\['W'\] must be \(2, 3\), as in params, got \(3,\)"):
        tutorial.Adam().update(params, {"W": np.ones(3), "b": np.ones(3)})
    assert_array_equal(params["W"], np.ones((2, 3)))


def test_a_refused_update_does_not_count_as_a_step():
    rules, results = (tutorial.Adam(), tutorial.Adam()), [{"x": 1.0}, {"x": 1.0}]
    with pytest.raises(ValueError, match="grads must"):
        rules[0].update(results[0], {})
    for rule, params in zip(rules, results, strict=True):
        rule.update(params, {"x": 0.5})
    assert results[0] == results[1]
