"""What an MLP consists of, and what it computes in inference and in training."""

import numpy as np
import pytest
from small_mlp import OPTIONS, ROUNDING, ROWS, batch, cross_entropy, everything, host, make, stir

from bnkit import MLP, optim


def textbook(model: MLP, x: np.ndarray) -> np.ndarray:
    """The logits in inference, in plain NumPy, of a model with running statistics."""
    p, config = host(model.backend, {**model.params, **model.state}), model.config
    options = config["batch_norm"] if isinstance(config["batch_norm"], dict) else {}
    i = 0
    for layer in range(len(config["sizes"]) - 1):
        x = x @ p[f"{i}.weight"] + p.get(f"{i}.bias", 0.0)
        i += 1
        if layer == len(config["sizes"]) - 2:
            break
        if config["batch_norm"]:
            x = (x - p[f"{i}.running_mean"]) / np.sqrt(p[f"{i}.running_var"] + options.get("eps", 1e-5))
            x = x * p.get(f"{i}.gamma", 1.0) + p.get(f"{i}.beta", 0.0)
            i += 1
        act = {"relu": lambda v: np.maximum(v, 0), "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "tanh": np.tanh}
        x = act[config["activation"]](x)
        i += 1 + bool(config["dropout"])
    return x


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_norm": False}, "0.weight 0.bias 2.weight 2.bias 4.weight 4.bias"),
        ({}, "0.weight 0.bias 1.gamma 1.beta 3.weight 3.bias 4.gamma 4.beta 6.weight 6.bias"),
        ({"bias": False}, "0.weight 1.gamma 1.beta 3.weight 4.gamma 4.beta 6.weight 6.bias"),
        ({"bias": False, "batch_norm": False}, "0.weight 0.bias 2.weight 2.bias 4.weight 4.bias"),
        ({"batch_norm": {"affine": False}}, "0.weight 0.bias 3.weight 3.bias 6.weight 6.bias"),
        ({"batch_norm": {}}, "0.weight 0.bias 1.gamma 1.beta 3.weight 3.bias 4.gamma 4.beta 6.weight 6.bias"),
        ({"batch_norm": False, "dropout": 0.5}, "0.weight 0.bias 3.weight 3.bias 6.weight 6.bias"),
        ({"dropout": 0.5, "bias": False}, "0.weight 1.gamma 1.beta 4.weight 5.gamma 5.beta 8.weight 8.bias"),
    ],
)
def test_params_are_named_by_the_layer_that_has_them(backend, options, expected):
    assert " ".join(make(backend, **options).params) == expected


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_layers_stand_in_the_order_linear_norm_activation_dropout(backend, activation):
    model = make(backend, activation=activation, dropout=0.5)
    hidden = ["Linear", "BatchNorm", {"relu": "ReLU"}.get(activation, activation.title()), "Dropout"]
    assert [type(layer).__name__ for layer in model.network.layers] == hidden * 2 + ["Linear"]


@pytest.mark.parametrize("replicas", [None, 2])
def test_params_and_state_have_the_shapes_of_the_sizes(backend, replicas):
    model, lead = make(backend, replicas=replicas), () if replicas is None else (replicas,)
    shapes = {name: tuple(a.shape) for name, a in {**model.params, **model.state}.items()}
    for i, (inputs, outputs) in zip((0, 3, 6), ((5, 6), (6, 4), (4, 3)), strict=True):
        assert shapes.pop(f"{i}.weight") == (*lead, inputs, outputs)
        assert shapes.pop(f"{i}.bias") == (*lead, outputs)
    for i, n in ((1, 6), (4, 4)):
        for name in ("gamma", "beta", "running_mean", "running_var"):
            assert shapes.pop(f"{i}.{name}") == (*lead, n)
        assert shapes.pop(f"{i}.count") == ()
    assert shapes == {}


def test_an_untracked_batch_norm_has_no_state(backend):
    assert make(backend, batch_norm={"track": False}).state == {}
    assert make(backend, batch_norm=False).state == {}


def test_batch_norm_options_reach_every_batch_norm(backend):
    options = {"decay": 0.5, "eps": 1e-2, "correction": 0, "ghost": 3}
    norms = [n for n in make(backend, batch_norm=options).network.layers if type(n).__name__ == "BatchNorm"]
    assert [{k: getattr(n, k) for k in options} for n in norms] == [options] * 2


def test_repr_names_every_option(backend):
    model = make(backend, batch_norm={"decay": 0.5}, replicas=2, init=[0.1, "he"], seed=[3, 4], dropout=0.1)
    made = eval(repr(model))
    assert made.config == model.config
    assert made.backend is backend


def test_a_network_without_hidden_layers_is_softmax_regression(backend):
    model, (x, t) = make(backend, (5, 3)), batch()
    p = host(backend, model.params)
    assert list(p) == ["0.weight", "0.bias"]
    logits = x @ p["0.weight"] + p["0.bias"]
    np.testing.assert_allclose(backend.to_numpy(model.predict(x)), logits, **ROUNDING)
    loss, grads = model.loss_and_grads(x, t)
    error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[t]
    np.testing.assert_allclose(float(loss), cross_entropy(logits, t), **ROUNDING)
    np.testing.assert_allclose(backend.to_numpy(grads["0.weight"]), x.T @ error / ROWS, **ROUNDING)


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "untracked"])
def test_predict_is_the_textbooks_network(backend, name):
    model, (x, t) = stir(make(backend, **OPTIONS[name])), batch()
    model.loss_and_grads(x, t)  # running statistics away from 0 and 1
    np.testing.assert_allclose(backend.to_numpy(model.predict(x)), textbook(model, x), **ROUNDING)


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "untracked"])
def test_loss_is_cross_entropy_in_inference_and_half_lambda_times_all_squared_weights(backend, name):
    model, (x, t) = stir(make(backend, **OPTIONS[name])), batch()
    model.loss_and_grads(x, t)
    p = host(backend, model.params)
    squares = sum(np.sum(w**2) for k, w in p.items() if k.endswith("weight"))
    expected = cross_entropy(textbook(model, x), t) + 0.5 * OPTIONS[name].get("weight_decay", 0.0) * squares
    np.testing.assert_allclose(float(model.loss(x, t)), expected, **ROUNDING)


def test_weight_decay_counts_the_weights_alone_and_each_replica_its_own(backend):
    x, t = batch()
    plain, decayed = (stir(make(backend, replicas=2, seed=[0, 1], weight_decay=wd)) for wd in (0.0, 0.4))
    w = [p for k, p in host(backend, plain.params).items() if k.endswith("weight")]
    squares = sum(np.sum(a**2, axis=(1, 2)) for a in w)
    assert len(w) == 3
    for losses in ([m.loss(x, t) for m in (plain, decayed)], [m.loss_and_grads(x, t)[0] for m in (plain, decayed)]):
        a, b = (backend.to_numpy(v) for v in losses)
        np.testing.assert_allclose(b - a, 0.2 * squares, **ROUNDING)


def test_accuracy_is_the_share_of_rows_whose_largest_logit_is_the_labels(backend):
    model, (x, t) = make(backend), batch(41)
    right = textbook(model, x).argmax(1) == t
    assert 0 < right.sum() < 41
    assert float(model.accuracy(x, t)) == pytest.approx(right.mean(), rel=1e-15)  # one division
    assert float(model.accuracy(x, textbook(model, x).argmax(1))) == 1.0


def test_training_moves_the_state_and_never_the_params(backend):
    model, (x, t) = make(backend), batch()
    params, before = host(backend, model.params), host(backend, model.state)
    model.loss_and_grads(x, t)
    hidden = x @ params["0.weight"] + params["0.bias"]
    after = host(backend, model.state)
    np.testing.assert_allclose(after["1.running_mean"], 0.1 * hidden.mean(0), **ROUNDING)
    np.testing.assert_allclose(after["1.running_var"], 0.9 + 0.1 * hidden.var(0, ddof=1), **ROUNDING)
    assert (before["1.count"], after["1.count"], after["4.count"]) == (0, 1, 1)
    for k, p in host(backend, model.params).items():
        np.testing.assert_array_equal(p, params[k])


def test_predict_loss_and_accuracy_move_nothing(backend):
    model, (x, t) = make(backend, dropout=0.5), batch()
    model.loss_and_grads(x, t)
    before = everything(model)
    first = [float(model.loss(x, t)), float(model.accuracy(x, t))]
    model.predict(x)
    assert [float(model.loss(x, t)), float(model.accuracy(x, t))] == first
    assert everything(model) == before


def test_dropout_is_drawn_by_seed_and_step(backend):
    x, t = batch(50)

    def loss(seed, step):
        model = make(backend, dropout=0.5)
        model.seed = seed
        return float(model.loss_and_grads(x, t, step=step)[0])

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(0, 1), loss(1, 0), loss(1, 1), loss(0, 2**40)}) == 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_a_diverged_network_gives_no_warning(backend, activation, batch_norm, dtype):
    huge = float(np.finfo(dtype).max) / 4
    options = {"activation": activation, "batch_norm": batch_norm, "weight_decay": 0.1, "dropout": 0.2}
    model, (x, t) = make(backend, init=huge, dtype=dtype, **options), batch(dtype=dtype)
    optimizer = optim.Adam(lr=huge)
    for step in range(4):
        loss, grads = model.loss_and_grads(x * 1e3, t, step=step)
        optimizer.update(model.params, grads)
    assert not np.isfinite(float(loss))
    assert not np.isfinite(float(model.loss(x, t)))
    assert np.isnan(float(model.accuracy(x, t)))
    assert np.isnan(backend.to_numpy(model.predict(x))).any()
