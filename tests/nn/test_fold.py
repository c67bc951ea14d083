"""fold and fold_weights: the same inference without batch norm."""

import copy

import numpy as np
import pytest
from small_layers import draw, on
from small_mlp import batch, everything, host, make, stir

import bnkit
from bnkit import MLP, BatchNorm, Dropout, Linear, ReLU, Sequential, Tanh, fold, fold_weights

# The same few products in float64, whose factors were multiplied in another order.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}
OPTIONS = {
    "plain": {"batch_norm": False},
    "default": {},
    "without bias": {"bias": False},
    "eps": {"batch_norm": {"eps": 0.1}},
    "not affine": {"batch_norm": {"affine": False}},
    "sigmoid": {"activation": "sigmoid"},
    "tanh and dropout": {"activation": "tanh", "dropout": 0.3, "weight_decay": 0.1},
}


def moved(layer, seed: int = 5):
    """The layer or model, its running statistics and parameters away from where they started."""
    rng = np.random.default_rng(seed)
    for name, a in {**layer.params, **layer.state}.items():
        if not name.endswith(("count", "weight")):
            values = rng.uniform(0.3, 2, tuple(a.shape)) if name.endswith("var") else rng.normal(size=tuple(a.shape))
            a[...] = bnkit.backend_of(a).asarray(values.astype("float64"), dtype=a.dtype)
    return layer


def norm(backend, features=4, **options) -> BatchNorm:
    return moved(BatchNorm(features, backend=backend, **{"dtype": "float64", **options}), seed=11)


def linear(backend, inputs=4, outputs=4, **options) -> Linear:
    return moved(Linear(inputs, outputs, backend=backend, **{"dtype": "float64", **options}), seed=12)


def predict(backend, network: Sequential, x: np.ndarray) -> np.ndarray:
    return backend.to_numpy(network.forward(on(backend, x), train=False)[0])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("replicas", [None, 2])
def test_a_folded_mlp_predicts_the_same(backend, options, replicas):
    seed = 3 if replicas is None else [3, 4]
    model, (x, _) = moved(stir(make(backend, replicas=replicas, seed=seed, **options))), batch(20)
    folded = fold(model)
    assert type(folded) is MLP
    assert not any(isinstance(layer, BatchNorm) for layer in folded.network.layers)
    got, want = (backend.to_numpy(m.predict(x)) for m in (folded, model))
    np.testing.assert_allclose(got, want, **ROUNDING)


def test_float32_predicts_within_1e_6_of_the_largest_logit(backend):
    model = moved(make(backend, sizes=(64, 100, 100, 100, 10), dtype="float32"))
    x = draw(50, 64, dtype="float32")
    got, want = (backend.to_numpy(m.predict(x)) for m in (fold(model), model))
    assert got.dtype == "float32"
    # Sums of 100 products in float32, of other factors: some roundings of the largest.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * abs(want).max())


def test_a_folded_mlp_is_saved_and_loaded(backend, tmp_path):
    folded = fold(moved(make(backend, replicas=2, seed=[3, 4], dropout=0.2, bias=False)))
    folded.save(tmp_path / "folded.npz")
    assert everything(MLP.load(tmp_path / "folded.npz", backend)) == everything(folded)


def test_the_model_stays_as_it_was_and_shares_no_array(backend):
    model = moved(make(backend))
    before = everything(model)
    for a in fold(model).params.values():
        a[...] = a + 1
    assert everything(model) == before


class Scale(Tanh):
    def __init__(self, scale):
        super().__init__()
        self.params = {"scale": scale}

    def forward(self, x, *, train, key=None):
        return x * self.params["scale"], None


def test_other_layers_are_copied_with_their_arrays(backend):
    network = Sequential(linear(backend), norm(backend), Scale(on(backend, np.full((), 2.0))))
    x = draw(7, 4)
    want, folded = predict(backend, network, x), fold(network)
    network.params["2.scale"][...] = 5.0
    np.testing.assert_allclose(predict(backend, folded, x), want, **ROUNDING)


NETWORKS = {
    "after a linear": lambda b: [linear(b), norm(b)],
    "after one without bias": lambda b: [linear(b, bias=False), norm(b), Tanh()],
    "its own relu": lambda b: [linear(b), norm(b, activation="relu"), linear(b)],
    "a relu after it": lambda b: [linear(b), norm(b), ReLU(), norm(b), linear(b)],
    "before a linear": lambda b: [norm(b), linear(b)],
    "before one without bias": lambda b: [norm(b, affine=False), linear(b, 4, 3, bias=False)],
    "a chain after": lambda b: [linear(b), norm(b), norm(b, affine=False), norm(b, eps=0.2)],
    "a chain before": lambda b: [norm(b), norm(b, eps=0.2), linear(b)],
    "dropout between": lambda b: [norm(b), Dropout(0.5), linear(b), Dropout(0.5), norm(b)],
    "on both sides": lambda b: [norm(b), linear(b), norm(b), norm(b, activation="relu"), norm(b), linear(b)],
    "nested": lambda b: [Sequential(linear(b), Sequential(norm(b))), Tanh(), Sequential(norm(b)), linear(b)],
    "last axis": lambda b: [norm(b, axis=-1), linear(b), norm(b, axis=(-1,), features=(4,))],
    "of one feature": lambda b: [linear(b, 4, 1), norm(b, 1), linear(b, 1, 1), norm(b, 1)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_sequential_gives_the_same(backend, name):
    network = Sequential(*NETWORKS[name](backend))
    folded = fold(network)
    assert type(folded) is Sequential
    assert not any(isinstance(layer, BatchNorm) for layer in folded.layers)
    x = draw(7, 4)
    np.testing.assert_allclose(predict(backend, folded, x), predict(backend, network, x), **ROUNDING)


REPLICAS = {
    "after": lambda b: [linear(b, replicas=2), norm(b, (2, 4), axis=(0, 2))],
    "before, its own data": lambda b: [norm(b, (2, 4), axis=(0, 2)), linear(b, replicas=2)],
    "shared parameters": lambda b: [
        linear(b, replicas=2),
        norm(b, axis=2),
        Tanh(),
        norm(b, axis=-1),
        linear(b, replicas=2),
    ],
    "shared data": lambda b: [norm(b), linear(b, replicas=2)],
}


@pytest.mark.parametrize("name", REPLICAS)
def test_replicas_are_folded_each(backend, name):
    network = Sequential(*REPLICAS[name](backend))
    x = draw(7, 4) if name == "shared data" else draw(2, 7, 4)
    np.testing.assert_allclose(predict(backend, fold(network), x), predict(backend, network, x), **ROUNDING)


def test_dropout_stays_for_training(backend):
    folded = fold(Sequential(linear(backend), Dropout(0.3), norm(backend)))
    assert [type(layer) for layer in folded.layers] == [Linear, Dropout]


def test_gamma_0_and_a_running_variance_of_0_are_folded(backend):
    layer = norm(backend)
    layer.params["gamma"][...] = on(backend, np.array([0.0, 1, 2, 3]))
    layer.state["running_var"][...] = on(backend, np.array([1.0, 0, 2, 0]))
    network = Sequential(linear(backend), layer)
    x = draw(7, 4)
    # 1 / sqrt(eps) is 316, so the sums are.
    np.testing.assert_allclose(predict(backend, fold(network), x), predict(backend, network, x), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        (lambda b: [norm(b, track=False), linear(b)], "must have running statistics, got track=False"),
        (lambda b: [norm(b)], "must be next to a Linear, got none"),
        (lambda b: [Tanh(), norm(b), Tanh(), linear(b)], "got Tanh after it and none before"),
        (lambda b: [linear(b), Tanh(), norm(b)], "must be next to a Linear, got none"),
        (lambda b: [norm(b, activation="relu"), linear(b)], 'with activation="relu" must follow a Linear'),
        (lambda b: [norm(b), norm(b, activation="relu"), linear(b)], 'with activation="relu" must follow'),
        (lambda b: [linear(b), norm(b, axis=0)], "must be over the features .*got axis=0"),
        (lambda b: [linear(b, replicas=2), norm(b, axis=1)], "must be over the features .*got axis=1"),
        (
            lambda b: [linear(b), norm(b, 5)],
            r"must have as many features as the adjacent Linear has outputs, .*\(4,\), got \(5,\)",
        ),
        (
            lambda b: [norm(b, 5), linear(b)],
            r"must have as many features as the adjacent Linear has inputs, .*\(4,\), got \(5,\)",
        ),
    ],
)
def test_what_cannot_be_folded_is_refused(backend, layers, match):
    with pytest.raises(ValueError, match=f"a BatchNorm .*{match}"):
        fold(Sequential(*layers(backend)))


@pytest.mark.parametrize("model", [BatchNorm(3, backend="numpy"), Linear(2, 3, backend="numpy"), None])
def test_another_model_is_refused(model):
    with pytest.raises(TypeError, match="model must be an MLP or a Sequential"):
        fold(model)


def statistics(backend, channels: int, dtype: str = "float64") -> dict:
    rng = np.random.default_rng(21)
    arrays = {name: rng.normal(size=channels) for name in ("gamma", "beta", "running_mean")}
    arrays["running_var"] = rng.uniform(0.3, 2, channels)
    return {name: on(backend, a.astype(dtype)) for name, a in arrays.items()}


def convolve(x: np.ndarray, weight: np.ndarray, bias, padding: int = 0, groups: int = 1) -> np.ndarray:
    """A convolution as its sum is written: y[n, o, i, j] = bias[o] + Σ weight[o, c, k, l] x[n, c, i + k, j + l]."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    outputs, inputs, high, wide = weight.shape
    y = np.zeros((x.shape[0], outputs, x.shape[2] - high + 1, x.shape[3] - wide + 1))
    for n, o, i, j in np.ndindex(y.shape):
        first = o // (outputs // groups) * inputs
        y[n, o, i, j] = (weight[o] * x[n, first : first + inputs, i : i + high, j : j + wide]).sum()
    return y if bias is None else y + bias[:, None, None]


def normalize(backend, x: np.ndarray, given: dict) -> np.ndarray:
    return backend.to_numpy(bnkit.batch_norm(on(backend, x), **given, train=False)[0])


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("padding", "groups"), [(0, 1), (1, 1), (0, 2)])
def test_a_convolution_takes_the_batch_norm_after_it(backend, biased, padding, groups):
    x, weight = draw(2, 4, 5, 6), draw(6, 4 // groups, 3, 2, seed=1)
    bias, given = draw(6, seed=2) if biased else None, statistics(backend, 6)
    folded = fold_weights(on(backend, weight), on(backend, bias) if biased else None, **given)
    got = convolve(x, *map(backend.to_numpy, folded), padding, groups)
    np.testing.assert_allclose(got, normalize(backend, convolve(x, weight, bias, padding, groups), given), **ROUNDING)


@pytest.mark.parametrize("biased", [True, False])
def test_a_convolution_takes_the_batch_norm_before_it(backend, biased):
    x, weight = draw(2, 3, 5, 6), draw(4, 3, 3, 2, seed=1)
    bias, given = draw(4, seed=2) if biased else None, statistics(backend, 3)
    options = {"before": True, "padding": (0, 0)}
    folded = fold_weights(on(backend, weight), on(backend, bias) if biased else None, **given, **options)
    got = convolve(x, *map(backend.to_numpy, folded))
    np.testing.assert_allclose(got, convolve(normalize(backend, x, given), weight, bias), **ROUNDING)


@pytest.mark.parametrize("before", [False, True])
def test_other_axes_are_those_of_a_linear_map(backend, before):
    x, weight, bias, given = draw(7, 3), draw(3, 3, seed=1), draw(3, seed=2), statistics(backend, 3)
    options = {"output_axis": 1, "input_axis": 0, "before": before, "padding": 0 if before else None}
    w, b = map(backend.to_numpy, fold_weights(on(backend, weight), on(backend, bias), **given, **options))
    if before:
        want = normalize(backend, x, given) @ weight + bias
    else:
        want = normalize(backend, x @ weight + bias, given)
    np.testing.assert_allclose(x @ w + b, want, **ROUNDING)


def test_statistics_without_parameters_are_folded(backend):
    x, weight = draw(2, 3, 4, 4), draw(4, 3, 2, 2, seed=1)
    given = {**statistics(backend, 4), "gamma": None, "beta": None}
    w, b = map(backend.to_numpy, fold_weights(on(backend, weight), None, **given))
    want = normalize(backend, convolve(x, weight, None), given)
    np.testing.assert_allclose(convolve(x, w, b), want, **ROUNDING)


def test_the_results_are_rounded_once_to_the_dtype_of_the_weight(backend):
    given, weight = statistics(backend, 6, "float32"), draw(6, 2, 3, 3, dtype="float32")
    wide = {name: on(backend, backend.to_numpy(a).astype("float64")) for name, a in given.items()}
    got = fold_weights(on(backend, weight), None, **given)
    want = fold_weights(on(backend, weight.astype("float64")), None, **wide)
    for a, b in zip(got, want, strict=True):
        assert backend.to_numpy(a).dtype == "float32"
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b).astype("float32"))


def test_a_weight_of_one_element_is_folded(backend):
    w, b = fold_weights(on(backend, np.full((1, 1, 1, 1), 3.0)), None, **statistics(backend, 1))
    assert (tuple(w.shape), tuple(b.shape)) == ((1, 1, 1, 1), (1,))


WRONG = {
    "bias": ({"bias": np.ones(3)}, ValueError, r"bias must have shape \(4,\), got \(3,\)"),
    "gamma": ({"gamma": np.ones(3)}, ValueError, r"gamma must have shape \(4,\), got \(3,\)"),
    "no mean": (
        {"running_mean": None},
        ValueError,
        "running_mean must be an array, got None; inference needs running statistics",
    ),
    "integers": ({"weight": np.ones((4, 2), int)}, TypeError, "weight must be one of float16"),
    "list": ({"gamma": [1.0] * 4}, TypeError, "gamma must be an array"),
    "eps": ({"eps": -1.0}, ValueError, "eps must be a finite number of at least 0"),
    "axis": ({"output_axis": 4}, ValueError, "output_axis must lie within the 4 axes"),
    "float axis": ({"input_axis": 1.0}, TypeError, "input_axis must be an int"),
    "same axis": ({"output_axis": -3}, ValueError, "output_axis and input_axis must differ"),
    "before": ({"before": 1}, TypeError, "before must be True or False"),
    "unsaid padding": ({"before": True}, ValueError, "padding must be an explicit 0 .*got None"),
    "no padding": ({"before": True, "padding": ()}, ValueError, r"padding must be an explicit 0 .*got \(\)"),
    "padding": ({"before": True, "padding": (0, 1)}, ValueError, r"padding must be an explicit 0 .*got \(0, 1\)"),
    "named padding": ({"before": True, "padding": "same"}, ValueError, "padding must be an explicit 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_fold_weights_cannot_take_is_refused(case):
    change, error, match = WRONG[case]
    given = {"weight": draw(4, 4, 2, 2), "bias": None, **statistics(bnkit.get_backend("numpy"), 4), **change}
    with pytest.raises(error, match=match):
        fold_weights(**given)


def test_mixed_backends_are_refused():
    with pytest.raises(TypeError, match="one backend"):
        fold_weights(draw(4, 4), None, **statistics(bnkit.get_backend("strict"), 4))


def test_arrays_are_left_untouched(backend):
    given, weight = statistics(backend, 4), on(backend, draw(4, 3))
    before = copy.deepcopy(host(backend, {**given, "weight": weight}))
    fold_weights(weight, None, **given)
    for name, a in host(backend, {**given, "weight": weight}).items():
        np.testing.assert_array_equal(a, before[name])
