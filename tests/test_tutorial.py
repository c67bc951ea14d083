"""bnkit.tutorial against the same classes written from their formulas, textbook_tutorial.py."""

import contextlib
import copy
import gzip
import inspect
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import textbook_tutorial as textbook
from numpy.testing import assert_allclose, assert_array_equal

from bnkit import tutorial

# Both sides compute in float64 and differ in the order of their operations: some hundred roundings of 1e-16 each.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}

OPTIMIZERS = {
    "SGD": {"lr": 0.1},
    "Momentum": {"lr": 0.05, "momentum": 0.8},
    "Nesterov": {"lr": 0.05, "momentum": 0.8},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.005, "decay_rate": 0.9},
    "Adam": {"lr": 0.01, "beta1": 0.8, "beta2": 0.95},
}

NETWORKS = {
    "plain": {},
    "batch norm": {"use_batchnorm": True},
    "sigmoid": {"activation": "sigmoid", "weight_init_std": "sigmoid"},
    "batch norm, sigmoid, weight decay": {
        "activation": "Sigmoid",
        "weight_init_std": "Xavier",
        "weight_decay_lambda": 0.1,
        "use_batchnorm": True,
    },
    "dropout": {"use_dropout": True, "dropout_ration": 0.3, "weight_init_std": "he"},
    "all of it": {"use_dropout": True, "use_batchnorm": True, "weight_decay_lambda": 0.02, "weight_init_std": 0.2},
}

SHAPES = [(7, 5), (1, 3), (2, 1), (4, 3, 5, 2), (13, 1, 1, 1)]

# The experiment of section 6.3 in small: one network with batch norm and one without learn from the same batches.
SCRIPT = """
import numpy as np
from {module} import SGD, MultiLayerNetExtend, load_mnist

(images, labels), (test_images, test_labels) = load_mnist(normalize=True)
images, labels = images[:1000], labels[:1000]
np.random.seed(63)

for scale in np.logspace(0, -4, num=16)[::4]:
    pair = [
        MultiLayerNetExtend(input_size=784, hidden_size_list=[100] * 5, output_size=10,
                            weight_init_std=scale, use_batchnorm=flag)
        for flag in (True, False)
    ]
    optimizer = SGD(lr=0.01)
    for step in range(21):
        rows = np.random.choice(len(images), 100)
        for network in pair:
            optimizer.update(network.params, network.gradient(images[rows], labels[rows]))
        if step % 10 == 0:
            print(step // 10, scale, *(network.accuracy(images, labels) for network in pair))
    print("test", *(network.accuracy(test_images[:500], test_labels[:500]) for network in pair))
"""


@pytest.fixture
def random():
    return np.random.default_rng(20)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """MNIST in BNKIT_DATA_DIR, or, where that holds none, files of its format with images that can be told apart."""
    data = os.environ.get("BNKIT_DATA_DIR")
    if data and (Path(data) / "mnist" / "train-images-idx3-ubyte.gz").is_file():
        return
    random = np.random.default_rng(3)
    (tmp_path / "mnist").mkdir()
    shades = random.integers(0, 200, (10, 28, 28))
    for name, count in (("train", 1200), ("t10k", 600)):
        t = random.integers(0, 10, count)
        x = shades[t] + random.integers(0, 56, (count, 28, 28))
        for kind, magic, array in (("images-idx3", 0x803, x), ("labels-idx1", 0x801, t)):
            header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            file = tmp_path / "mnist" / f"{name}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    monkeypatch.setenv("BNKIT_DATA_DIR", str(tmp_path))


def build_both(**options):
    """The two networks from one seed, and what the seed gives after them."""
    networks = []
    for module in (tutorial, textbook):
        np.random.seed(11)
        networks.append(module.MultiLayerNetExtend(6, [8, 7], 4, **options))
    return networks


def batch(random, rows=9):
    return random.normal(0, 1, (rows, 6)), random.integers(0, 4, rows)


def assert_same_entries(ours, expected, tolerance=CLOSE):
    assert set(ours) == set(expected)
    for key in expected:
        assert_allclose(ours[key], expected[key], err_msg=key, **tolerance)


@pytest.mark.parametrize("name", tutorial.__all__)
def test_signatures_are_the_tutorials(name):
    def parameters(module):
        return [(p.name, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]

    expected = parameters(textbook)
    if name == "Adam":
        expected = [("lr", 0.001), ("beta1", 0.9), ("beta2", 0.999)]
    assert parameters(tutorial) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization_follows_the_formulas_over_steps(random, shape):
    features = np.prod(shape[1:])
    gamma, beta = random.normal(1, 0.5, features), random.normal(0, 0.5, features)
    ours, expected = (m.BatchNormalization(gamma.copy(), beta.copy(), momentum=0.8) for m in (tutorial, textbook))
    for step in range(4):
        x, dout = random.normal(step, 1 + step, shape), random.normal(0, 1, shape)
        assert_allclose(ours.forward(x), expected.forward(x), **CLOSE)
        assert_allclose(ours.backward(dout), expected.backward(dout), **CLOSE)
        for name in ("running_mean", "running_var", "dgamma", "dbeta"):
            assert getattr(ours, name).shape == (features,)
            assert_allclose(getattr(ours, name), getattr(expected, name), err_msg=name, **CLOSE)
        assert_allclose(ours.forward(x, train_flg=False), expected.forward(x, train_flg=False), **CLOSE)
        assert ours.input_shape == shape


def test_batch_normalization_starts_from_the_running_arrays_it_is_given(random):
    given = random.normal(0, 1, 3), random.uniform(1, 2, 3)
    layers = [m.BatchNormalization(np.ones(3), np.zeros(3), 0.9, *map(np.copy, given)) for m in (tutorial, textbook)]
    x = random.normal(0, 1, (5, 3))
    for train_flg in (False, True, False):
        assert_allclose(*(layer.forward(x, train_flg) for layer in layers), **CLOSE)
    assert_allclose(layers[0].running_var, layers[1].running_var, **CLOSE)


@pytest.mark.parametrize("train_flg", [True, False])
def test_running_arrays_begin_as_zeros_at_the_first_forward(random, train_flg):
    layer = tutorial.BatchNormalization(np.ones(3), np.zeros(3), momentum=1.0)
    assert layer.running_mean is None
    assert layer.running_var is None
    layer.forward(random.normal(5, 1, (4, 3)), train_flg)
    for array in (layer.running_mean, layer.running_var):
        assert array.dtype == np.float64
        assert_array_equal(array, np.zeros(3))


def test_running_arrays_are_new_after_each_training_forward(random):
    mean, var = np.zeros(3), np.ones(3)
    layer = tutorial.BatchNormalization(np.ones(3), np.zeros(3), 0.9, mean, var)
    layer.forward(random.normal(5, 1, (4, 3)))
    assert_array_equal(mean, np.zeros(3))
    assert_array_equal(var, np.ones(3))
    assert layer.running_mean is not mean
    assert layer.running_var is not var


def test_backward_belongs_to_the_last_training_forward_whatever_happens_to_its_arrays(random):
    gamma, x, dout = random.normal(1, 0.5, 3), random.normal(0, 1, (5, 3)), random.normal(0, 1, (5, 3))
    results = []
    for module in (tutorial, textbook):
        layer = module.BatchNormalization(gamma.copy(), np.zeros(3))
        mine = x.copy()
        layer.forward(mine)
        mine[:] = 7
        layer.gamma *= 2
        layer.forward(x[:2], train_flg=False)
        results.append((layer.backward(dout), layer.dgamma, layer.dbeta))
    for ours, expected in zip(*results, strict=True):
        assert_allclose(ours, expected, **CLOSE)


def test_batch_normalization_leaves_its_arguments_as_they_were(random):
    x, dout, gamma, beta = random.normal(0, 1, (5, 3)), random.normal(0, 1, (5, 3)), np.full(3, 2.0), np.full(3, 3.0)
    arrays = x, dout, gamma, beta
    copies = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    layer = tutorial.BatchNormalization(gamma, beta)
    y, dx = layer.forward(x), layer.backward(dout)
    y[:], dx[:] = 0, 0
    for array, before in zip(arrays, copies, strict=True):
        assert_array_equal(array, before)


def test_batch_normalization_takes_numbers_for_gamma_and_beta_and_images_out_of_order(random):
    layers = [module.BatchNormalization(2, 0.5) for module in (tutorial, textbook)]
    x, dout = random.normal(0, 1, (2, 3, 2, 5)).T, random.normal(0, 1, (5, 12))
    assert_allclose(*(layer.forward(x) for layer in layers), **CLOSE)
    assert_allclose(layers[0].backward(dout), layers[1].backward(dout).reshape(x.shape), **CLOSE)


@pytest.mark.parametrize("parameters", [np.float64, np.float32])
@pytest.mark.parametrize("images", [np.float64, np.float32, np.float16, np.uint8])
def test_dtypes_are_those_of_the_formulas(random, images, parameters):
    x = random.integers(0, 9, (6, 4)).astype(images)
    dout = np.ones((6, 4), np.float32)
    layers = [m.BatchNormalization(np.ones(4, parameters), np.zeros(4, parameters)) for m in (tutorial, textbook)]
    for train_flg in (True, False):
        ours, expected = (layer.forward(x, train_flg) for layer in layers)
        assert ours.dtype == expected.dtype
        # The formulas round every step to float16, eps = 1e-3; bnkit only the result.
        assert_allclose(ours, expected, rtol=1e-2, atol=1e-2)
    assert layers[0].backward(dout).dtype == layers[1].backward(dout).dtype
    assert layers[0].running_mean.dtype == layers[1].running_mean.dtype


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


@pytest.mark.parametrize(("scale", "number"), [("relu", 2.0), ("He", 2.0), ("sigmoid", 1.0), ("XAVIER", 1.0)])
def test_a_named_scale_is_the_root_of_its_gain_over_the_inputs(scale, number):
    np.random.seed(5)
    params = tutorial.MultiLayerNetExtend(30, [20], 10, weight_init_std=scale).params
    np.random.seed(5)
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_overflows_without_a_warning(optimizer):
    params = {"x": np.full(2, 1e308)}
    rule = getattr(tutorial, optimizer)(lr=10.0)
    for _ in range(2):
        rule.update(params, {"x": np.array([1e308, np.inf])})
    assert not np.isfinite(params["x"]).all()


def test_batch_normalization_overflows_without_a_warning(random):
    layer = tutorial.BatchNormalization(np.full(3, 1e308), np.full(3, 1e308))
    assert not np.isfinite(layer.forward(random.normal(0, 1, (50, 3)))).all()
    assert not np.isfinite(layer.backward(random.normal(0, 9, (50, 3)))).all()
    layer.forward(random.normal(0, 1e200, (50, 3)))


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


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_load_mnist_gives_the_tutorials_arrays(mnist, normalize, flatten, one_hot_label):
    ours = tutorial.load_mnist(normalize, flatten, one_hot_label)
    expected = textbook.load_mnist(normalize, flatten, one_hot_label)
    for our_part, expected_part in zip(ours, expected, strict=True):
        for our_array, array in zip(our_part, expected_part, strict=True):
            assert our_array.dtype == array.dtype
            assert_array_equal(our_array, array)


def test_the_experiment_prints_the_same_accuracies_with_only_its_imports_changed(mnist):
    printed = []
    for module in ("bnkit.tutorial", "textbook_tutorial"):
        # Only the formulas overflow audibly at scale 1.
        quiet = np.errstate(all="ignore") if module == "textbook_tutorial" else contextlib.nullcontext()
        with quiet, contextlib.redirect_stdout(io.StringIO()) as output:
            exec(SCRIPT.format(module=module), {"__name__": "__main__"})
        printed.append(output.getvalue().splitlines())
    assert len(printed[0]) == 16
    assert printed[0] == printed[1]
    assert any(0.3 < float(line.split()[2]) < 1 for line in printed[0])


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


def test_backward_without_a_training_forward_is_refused():
    layer = tutorial.BatchNormalization(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"backward must come after forward\(x, train_flg=True\)"):
        layer.backward(np.ones((2, 3)))
    layer.forward(np.ones((2, 3)), train_flg=False)
    with pytest.raises(ValueError, match=r"backward must come after forward\(x, train_flg=True\)"):
        layer.backward(np.ones((2, 3)))


def test_backward_refuses_another_shape():
    layer = tutorial.BatchNormalization(np.ones(6), np.zeros(6))
    layer.forward(np.ones((2, 1, 2, 3)))
    with pytest.raises(ValueError, match=r"dout must be \(2, 1, 2, 3\).* got \(3, 6\)"):
        layer.backward(np.ones((3, 6)))


@pytest.mark.parametrize(
    ("arguments", "x", "error", "message"),
    [
        ((np.ones(2), np.zeros(3)), np.ones((4, 3)), ValueError, r"gamma must be \(3,\).* got \(2,\)"),
        ((np.ones(3), np.zeros((3, 1))), np.ones((4, 3)), ValueError, r"beta must be \(3,\).* got \(3, 1\)"),
        ((np.ones(3), np.zeros(3)), np.ones((4, 3, 5, 5)), ValueError, r"gamma must be \(75,\).* got \(3,\)"),
        ((np.ones(3), np.zeros(3)), np.ones(3), ValueError, r"x must be \(N, D\) or \(N, C, H, W\), got \(3,\)"),
        ((np.ones(3), np.zeros(3)), np.ones((4, 3), complex), TypeError, "x must hold real numbers, got complex128"),
        ((None, np.zeros(3)), np.ones((4, 3)), TypeError, "gamma must hold real numbers, got object"),
        ((1, 0, 0.9, np.ones(2), np.ones(2)), np.ones((4, 3)), ValueError, r"running_mean must be \(3,\)"),
        ((1, 0, 0.9, np.ones(3), np.ones(2)), np.ones((4, 3)), ValueError, r"running_var must be \(3,\)"),
    ],
)
def test_batch_normalization_refuses_bad_arrays(arguments, x, error, message):
    layer = tutorial.BatchNormalization(*arguments)
    with pytest.raises(error, match=message):
        layer.forward(x)


def test_running_arrays_come_both_or_neither():
    with pytest.raises(ValueError, match=r"running_mean and running_var .* got None for running_var"):
        tutorial.BatchNormalization(np.ones(3), np.zeros(3), running_mean=np.zeros(3))


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
