import copy
import gc
import json
import pickle
import zipfile

import array_api_strict
import numpy as np
import pytest

from bnkit import MLP, backend_of, get_backend, optim
from bnkit.gradcheck import numerical_gradient

SIZES = (5, 6, 4, 3)
ROWS = 9
# Central differences: H²/6 = 2e-11 of a third derivative, which batch norm over a few rows makes as large as 1e3, and
# rounding of the loss, 1e-16 / H = 1e-11.
H = 1e-5
GRADIENT = {"rtol": 0, "atol": 5e-8}
# The same float64 sums, which a batched product or another library may order differently.
ROUNDING = {"rtol": 1e-12, "atol": 1e-13}

COPIES = [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]
OPTIONS = {
    "plain": {"batch_norm": False},
    "default": {},
    "per option": {"batch_norm": {"decay": None, "eps": 1e-3, "correction": 0, "ghost": 4}},
    "not affine": {"batch_norm": {"affine": False}},
    "untracked": {"batch_norm": {"track": False}},
    "sigmoid": {"activation": "sigmoid"},
    "tanh without bias": {"activation": "tanh", "bias": False},
    "all": {"activation": "sigmoid", "weight_decay": 0.1, "dropout": 0.3, "batch_norm": {"ghost": 5}},
}


def make(backend, sizes=SIZES, **options) -> MLP:
    return MLP(sizes, backend=backend, **{"dtype": "float64", **options})


def batch(rows=ROWS, lead=(), seed=0, dtype="float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*lead, rows, SIZES[0])).astype(dtype), rng.integers(SIZES[-1], size=(*lead, rows))


def host(backend, arrays: dict) -> dict[str, np.ndarray]:
    return {k: np.array(v if isinstance(v, np.ndarray) else backend.to_numpy(v)) for k, v in arrays.items()}


def everything(model: MLP) -> dict[str, bytes]:
    """Every bit of a model that training may move."""
    return {k: a.tobytes() for k, a in host(model.backend, {**model.params, **model.state}).items()}


def stir(model: MLP, seed: int = 7) -> MLP:
    """The model with every parameter away from its starting value."""
    rng = np.random.default_rng(seed)
    for name, p in model.params.items():
        if not name.endswith("weight"):
            p[...] = model.backend.asarray(rng.normal(1, 0.3, size=tuple(p.shape)).astype(model.dtype))
    return model


def cross_entropy(logits: np.ndarray, t: np.ndarray) -> float:
    """Written out row by row: -Σ w log softmax, over the rows' number."""
    total = 0.0
    for z, label in zip(logits, t, strict=True):
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        total -= log_p[label] if np.ndim(label) == 0 else np.sum(label * log_p)
    return total / len(logits)


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


# Its layers and their arrays


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_params_lie_on_the_backend_in_the_dtype(backend, dtype):
    model = make(backend, dtype=dtype)
    assert model.backend is backend
    for name, p in model.params.items():
        assert backend_of(p) is backend
        assert str(backend.to_numpy(p).dtype) == dtype, name


def test_an_untracked_batch_norm_has_no_state(backend):
    assert make(backend, batch_norm={"track": False}).state == {}
    assert make(backend, batch_norm=False).state == {}


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


def test_batch_norm_options_reach_every_batch_norm(backend):
    options = {"decay": 0.5, "eps": 1e-2, "correction": 0, "ghost": 3}
    norms = [n for n in make(backend, batch_norm=options).network.layers if type(n).__name__ == "BatchNorm"]
    assert [{k: getattr(n, k) for k in options} for n in norms] == [options] * 2


# What it computes


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


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_meet_central_differences(backend, name):
    # Each call of f moves the running statistics, of which a training loss is independent.
    model, (x, t) = stir(make(backend, **OPTIONS[name], init=0.5)), batch()
    loss, grads = model.loss_and_grads(x, t, step=3)
    assert list(grads) == list(model.params)
    assert float(model.loss_and_grads(x, t, step=3)[0]) == float(loss)
    for key, p in model.params.items():
        found = numerical_gradient(lambda: model.loss_and_grads(x, t, step=3)[0], p, H)
        np.testing.assert_allclose(backend.to_numpy(grads[key]), found, err_msg=key, **GRADIENT)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_gradients_of_replicas_meet_central_differences(backend, lead):
    options = {"activation": "tanh", "weight_decay": 0.1, "dropout": 0.3, "bias": False}
    model = stir(make(backend, (5, 4, 3), replicas=2, seed=[0, 1], init=[0.5, 1.0], **options))
    x, t = batch(lead=lead)
    _, grads = model.loss_and_grads(x, t, step=1)
    for key, p in model.params.items():
        found = numerical_gradient(lambda: backend.xp.sum(model.loss_and_grads(x, t, step=1)[0]), p, H)
        np.testing.assert_allclose(backend.to_numpy(grads[key]), found, err_msg=key, **GRADIENT)


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


def test_inference_drops_nothing(backend):
    x, _ = batch()
    with_dropout, without = (make(backend, (5, 6, 3), batch_norm=False, dropout=d) for d in (0.5, 0.0))
    logits = [backend.to_numpy(m.predict(x)) for m in (with_dropout, without)]
    np.testing.assert_array_equal(*logits)


def test_dropout_is_drawn_by_seed_and_step(backend):
    x, t = batch(50)

    def loss(seed, step):
        model = make(backend, dropout=0.5)
        model.seed = seed
        return float(model.loss_and_grads(x, t, step=step)[0])

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(0, 1), loss(1, 0), loss(1, 1), loss(0, 2**40)}) == 5


def test_accuracy_is_the_share_of_rows_whose_largest_logit_is_the_labels(backend):
    model, (x, t) = make(backend), batch(41)
    right = textbook(model, x).argmax(1) == t
    assert 0 < right.sum() < 41
    assert float(model.accuracy(x, t)) == pytest.approx(right.mean(), rel=1e-15)  # one division
    assert float(model.accuracy(x, textbook(model, x).argmax(1))) == 1.0


# Labels


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_of_any_integer_dtype_equal_one_hot_weights(backend, dtype, replicas):
    model, (x, t) = make(backend, replicas=replicas, batch_norm={"track": False}), batch()
    for form in (t.astype(dtype), np.eye(3)[t], np.eye(3, dtype="float32")[t]):
        loss, grads = model.loss_and_grads(x, form)
        expected, expected_grads = model.loss_and_grads(x, t)
        np.testing.assert_array_equal(backend.to_numpy(loss), backend.to_numpy(expected))
        for key, grad in host(backend, expected_grads).items():
            np.testing.assert_array_equal(backend.to_numpy(grads[key]), grad)
        np.testing.assert_array_equal(backend.to_numpy(model.accuracy(x, form)), backend.to_numpy(model.accuracy(x, t)))


def test_weights_of_several_classes_are_soft_labels(backend):
    model, (x, _) = stir(make(backend, batch_norm={"track": False}, init=0.5)), batch()
    soft = np.random.default_rng(3).uniform(0.1, 1, size=(ROWS, 3))  # rows need not sum to 1
    model_loss, grads = model.loss_and_grads(x, soft)
    np.testing.assert_allclose(float(model_loss), cross_entropy(backend.to_numpy(model.predict(x)), soft), **ROUNDING)
    p = model.params["6.weight"]
    found = numerical_gradient(lambda: model.loss_and_grads(x, soft)[0], p, H)
    np.testing.assert_allclose(backend.to_numpy(grads["6.weight"]), found, **GRADIENT)


# Replicas


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_replica_is_the_single_network_of_its_seed_and_init(backend, name, lead):
    seeds, inits, options = [4, 5, 4], ["he", "he", 0.3], OPTIONS[name]
    together = make(backend, replicas=3, seed=seeds, init=inits, **options)
    optimizer = optim.Momentum(lr=0.1)
    losses = []
    for step in range(3):
        loss, grads = together.loss_and_grads(*batch(lead=lead, seed=step), step=step)
        optimizer.update(together.params, grads)
        losses.append(backend.to_numpy(loss))
        assert tuple(loss.shape) == (3,)
    x, t = batch(lead=lead, seed=9)
    for r in range(3):
        single, alone = make(backend, seed=seeds[r], init=inits[r], **options), optim.Momentum(lr=0.1)
        for step in range(3):
            x_step, t_step = batch(lead=lead, seed=step)
            loss, grads = single.loss_and_grads(x_step[r] if lead else x_step, t_step[r] if lead else t_step, step=step)
            alone.update(single.params, grads)
            np.testing.assert_allclose(losses[step][r], float(loss), **ROUNDING)
        for key, a in host(backend, {**single.params, **single.state}).items():
            of_all = host(backend, {**together.params, **together.state})[key]
            np.testing.assert_allclose(of_all if key.endswith("count") else of_all[r], a, err_msg=key, **ROUNDING)
        mine = (x[r], t[r]) if lead else (x, t)
        np.testing.assert_allclose(
            backend.to_numpy(together.predict(x))[r], backend.to_numpy(single.predict(mine[0])), **ROUNDING
        )
        for method in ("loss", "accuracy"):
            both = backend.to_numpy(getattr(together, method)(x, t)), float(getattr(single, method)(*mine))
            np.testing.assert_allclose(both[0][r], both[1], **ROUNDING)


def test_a_diverging_replica_leaves_the_others_alone(backend):
    x, t = batch()
    options = {"batch_norm": False, "dtype": "float32"}
    together = make(backend, replicas=2, init=[1e30, 0.3], **options)
    single = make(backend, init=0.3, **options)
    pair, alone = optim.SGD(lr=0.1), optim.SGD(lr=0.1)
    for step in range(3):
        for model, optimizer in ((together, pair), (single, alone)):
            optimizer.update(model.params, model.loss_and_grads(x, t, step=step)[1])
    losses = backend.to_numpy(together.loss(x, t))
    assert not np.isfinite(losses[0])
    assert losses[1] == pytest.approx(float(single.loss(x, t)), rel=1e-5)  # float32 sums in another order


def test_labels_of_replicas_may_be_their_own_with_shared_data(backend):
    model = make(backend, replicas=2, seed=[0, 0], batch_norm={"track": False})
    x, t = batch()
    other = (t + 1) % 3
    loss = backend.to_numpy(model.loss(x, np.stack([t, other])))
    np.testing.assert_allclose(loss, [backend.to_numpy(model.loss(x, v))[0] for v in (t, other)], **ROUNDING)


# Where arrays lie


@pytest.mark.parametrize("replicas", [None, 2])
def test_host_arrays_go_in_and_arrays_of_the_backend_come_out(backend, replicas):
    model, (x, t) = make(backend, replicas=replicas), batch()
    loss, grads = model.loss_and_grads(x, t)
    for a in (model.predict(x), model.loss(x, t), model.accuracy(x, t), loss, *grads.values()):
        if backend.name != "numpy":
            assert backend_of(a) is backend
        assert type(backend.to_numpy(a)) is np.ndarray or np.isscalar(a)


def test_arrays_of_the_backend_give_what_host_arrays_give(backend):
    model, (x, t) = make(backend, batch_norm={"track": False}), batch()
    for target in (t, np.eye(3)[t]):
        moved = backend.asarray(x), backend.asarray(target)
        for method in ("loss", "accuracy"):
            assert float(getattr(model, method)(*moved)) == float(getattr(model, method)(x, target))
        assert float(model.loss_and_grads(*moved)[0]) == float(model.loss_and_grads(x, target)[0])


def test_floats_of_another_width_take_the_models_dtype(backend):
    x, t = batch()
    for dtype in ("float32", "float64"):
        model = make(backend, dtype=dtype)
        for x_dtype in ("float32", "float64"):
            assert str(backend.to_numpy(model.predict(x.astype(x_dtype))).dtype) == dtype
            grads = model.loss_and_grads(x.astype(x_dtype), t)[1]
            assert {str(g.dtype) for g in host(backend, grads).values()} == {dtype}


def test_data_are_left_untouched(backend):
    x, t = batch()
    mine = x.copy(), t.copy()
    for a in mine:
        a.flags.writeable = False
    model = make(backend, dropout=0.3)
    model.loss_and_grads(*mine)
    model.loss(*mine)
    np.testing.assert_array_equal(mine[0], x)
    np.testing.assert_array_equal(mine[1], t)


@pytest.mark.parametrize("name", ["default", "all"])
def test_one_seed_is_one_network_on_every_backend(backend, name):
    ours, numpys = (make(b, seed=11, **OPTIONS[name]) for b in (backend, "numpy"))
    assert everything(ours) == everything(numpys)
    for step in range(2):
        x, t = batch(seed=step)
        loss, grads = ours.loss_and_grads(x, t, step=step)
        expected, expected_grads = numpys.loss_and_grads(x, t, step=step)
        np.testing.assert_allclose(float(loss), float(expected), **ROUNDING)
        for key, g in expected_grads.items():
            np.testing.assert_allclose(backend.to_numpy(grads[key]), g, **ROUNDING)


# What it refuses

MISTAKES = [
    ("a label too large", lambda x, t: (x, np.where(t == 2, 3, t)), ValueError, "labels from 0 to 2.*3"),
    ("a negative label", lambda x, t: (x, t - 1), ValueError, "labels from 0 to 2.*-1"),
    ("too few labels", lambda x, t: (x, t[:-1]), ValueError, "t must be"),
    ("labels as a column", lambda x, t: (x, t[:, None]), ValueError, "t must be"),
    ("too many classes", lambda x, t: (x, np.eye(4)[t]), ValueError, "t must be"),
    ("float labels", lambda x, t: (x, t.astype(float)), ValueError, "t must be"),
    ("boolean labels", lambda x, t: (x, np.eye(3, dtype=bool)[t]), TypeError, "t must be"),
    ("a list of labels", lambda x, t: (x, t.tolist()), TypeError, "t must be"),
    ("another width", lambda x, t: (x[:, :4], t), ValueError, r"x must be \(rows, 5\)"),
    ("a single row", lambda x, t: (x[0], t[:1]), ValueError, r"x must be \(rows, 5\)"),
    ("replicas", lambda x, t: (np.stack([x, x]), t), ValueError, r"x must be \(rows, 5\)"),
    ("integer data", lambda x, t: (x.astype(int), t), TypeError, "x must be"),
    ("complex data", lambda x, t: (x.astype(complex), t), TypeError, "x must be"),
    ("a list of data", lambda x, t: (x.tolist(), t), TypeError, "list"),
]


@pytest.mark.parametrize(("spoil", "error", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistaken_batch_is_refused_before_anything_moves(backend, spoil, error, says):
    model = make(backend)
    x, t = spoil(*batch())
    before = everything(model)
    for method in (model.loss_and_grads, model.loss, model.accuracy):
        with pytest.raises(error, match=says):
            method(x, t)
    assert everything(model) == before


@pytest.mark.parametrize("which", ["x", "t"])
def test_arrays_of_another_backend_are_refused_before_anything_moves(backend, which):
    if backend.name == "strict":  # it moves host NumPy arrays; what lies on the double's own host is foreign to it
        foreign, error = array_api_strict.asarray, RuntimeError
    else:
        foreign, error = get_backend("strict").asarray, TypeError
    x, t = batch()
    arguments = (foreign(x), t) if which == "x" else (x, foreign(t))
    model = make(backend)
    before = everything(model)
    for method in (model.loss_and_grads, model.loss, model.accuracy):
        with pytest.raises(error):
            method(*arguments)
    assert everything(model) == before


@pytest.mark.parametrize("shape", [(3, ROWS, 5), (2, ROWS, 4), (2, 2, ROWS, 5), (5,)])
def test_data_of_another_number_of_replicas_are_refused(backend, shape):
    model = make(backend, replicas=2)
    before = everything(model)
    with pytest.raises(ValueError, match=r"x must be \(rows, 5\) or \(2, rows, 5\)"):
        model.loss_and_grads(np.ones(shape), np.zeros(ROWS, int))
    assert everything(model) == before


def test_a_batch_of_one_row_is_refused_before_anything_moves(backend):
    model, (x, t) = make(backend), batch(1)
    before = everything(model)
    with pytest.raises(ValueError, match="more than 1 element"):
        model.loss_and_grads(x, t)
    assert everything(model) == before


@pytest.mark.parametrize(("step", "error"), [(-1, ValueError), (0.5, TypeError), (None, TypeError)])
def test_a_step_that_is_no_count_is_refused_before_anything_moves(backend, step, error):
    model = make(backend, dropout=0.5)
    before = everything(model)
    with pytest.raises(error, match="step"):
        model.loss_and_grads(*batch(), step=step)
    assert everything(model) == before


@pytest.mark.parametrize(
    ("sizes", "options", "error", "says"),
    [
        ((5,), {}, ValueError, "sizes"),
        ((), {}, ValueError, "sizes"),
        ((5, 0, 3), {}, ValueError, "sizes.*0"),
        ((5, 4.0, 3), {}, TypeError, "sizes.*4.0"),
        (SIZES, {"activation": "gelu"}, ValueError, "activation.*gelu"),
        (SIZES, {"dtype": "float16"}, ValueError, "dtype.*float16"),
        (SIZES, {"dropout": 1.0}, ValueError, "dropout"),
        (SIZES, {"dropout": "0.5"}, TypeError, "dropout"),
        (SIZES, {"weight_decay": -0.1}, ValueError, "weight_decay"),
        (SIZES, {"weight_decay": None}, TypeError, "weight_decay"),
        (SIZES, {"init": "lecun"}, ValueError, "init.*lecun"),
        (SIZES, {"seed": -1}, ValueError, "seed"),
        (SIZES, {"seed": [0, 1]}, ValueError, "seed.*replicas"),
        (SIZES, {"replicas": 3, "init": [0.1, 0.2]}, ValueError, "init.*3 replicas.*2"),
        (SIZES, {"replicas": 0}, ValueError, "replicas"),
        (SIZES, {"batch_norm": {"momentum": 0.9}}, ValueError, "batch_norm takes.*momentum"),
        (SIZES, {"batch_norm": {"axis": 1}}, ValueError, "batch_norm takes.*axis"),
        (SIZES, {"batch_norm": {"decay": "0.9"}}, TypeError, "decay"),
        (SIZES, {"batch_norm": {"correction": 2}}, ValueError, "correction"),
        (SIZES, {"batch_norm": {"ghost": 0}}, ValueError, "ghost"),
        (SIZES, {"batch_norm": "off"}, TypeError, "batch_norm"),
    ],
)
def test_options_that_cannot_be_are_refused(sizes, options, error, says):
    with pytest.raises(error, match=says):
        MLP(sizes, backend="numpy", **options)


# Divergence


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
    assert 0 <= float(model.accuracy(x, t)) <= 1
    assert np.isnan(backend.to_numpy(model.predict(x))).any()


# Copies and files


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("replicas", [None, 2])
def test_a_copy_goes_on_as_the_original_and_apart_from_it(backend, copied, replicas):
    model, (x, t) = stir(make(backend, dropout=0.3, replicas=replicas)), batch()
    model.loss_and_grads(x, t)
    twin, before = copied(model), everything(model)
    assert everything(twin) == before
    assert twin.backend is backend
    loss = backend.to_numpy(twin.loss_and_grads(x, t, step=5)[0])
    assert everything(model) == before
    np.testing.assert_array_equal(loss, backend.to_numpy(model.loss_and_grads(x, t, step=5)[0]))
    assert everything(model) == everything(twin)


def trained(backend, **options) -> MLP:
    model = stir(make(backend, **options))
    for step in range(2):
        model.loss_and_grads(*batch(seed=step), step=step)
    return model


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_load_gives_back_what_save_wrote(backend, tmp_path, name, replicas):
    options = {**OPTIONS[name], "replicas": replicas, "init": 0.3 if replicas is None else [0.3, "he"]}
    model = trained(backend, **options)
    model.save(tmp_path / "net.npz")
    found = MLP.load(tmp_path / "net.npz", backend=backend)
    assert repr(found) == repr(model)
    assert everything(found) == everything(model)
    x, t = batch(seed=5)
    np.testing.assert_array_equal(backend.to_numpy(found.predict(x)), backend.to_numpy(model.predict(x)))
    for m in (found, model):
        m.loss_and_grads(x, t, step=4)
    assert everything(found) == everything(model)


def test_a_saved_network_loads_on_another_backend(backend, tmp_path):
    for source, target in ((backend, get_backend("numpy")), (get_backend("numpy"), backend)):
        model = trained(source, dropout=0.2)
        model.save(tmp_path / "net.npz")
        found = MLP.load(tmp_path / "net.npz", backend=target.key)
        assert found.backend is target
        assert everything(found) == everything(model)


def test_save_writes_to_exactly_the_path_it_is_given(backend, tmp_path):
    for path in (tmp_path / "net", str(tmp_path / "net.bnkit")):
        make(backend).save(path)
        MLP.load(path, backend=backend)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "net.bnkit"]


def test_sizes_and_seeds_may_be_numpy_integers(backend, tmp_path):
    _, t = batch()
    model = make(backend, (np.int64(5), np.int32(4), t.max() + 1), replicas=2, seed=list(np.arange(2)))
    model.save(tmp_path / "net.npz")
    assert everything(MLP.load(tmp_path / "net.npz", backend=backend)) == everything(model)


def saved(tmp_path) -> tuple:
    path = tmp_path / "net.npz"
    trained("numpy").save(path)
    return path, path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, share):
    path, content = saved(tmp_path)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")
    gc.collect()  # a warning of an unclosed file belongs to this test


def test_a_damaged_file_is_refused_by_name_or_loads_the_same_network(tmp_path):
    """One byte in three, each in a copy of its own; some bytes of a zip file, as the time of day, mean nothing."""
    path, content = saved(tmp_path)
    expected, refused = everything(MLP.load(path, backend="numpy")), 0
    for i in range(0, len(content), 3):
        spoilt = bytearray(content)
        spoilt[i] ^= 0x81
        path.write_bytes(spoilt)
        try:
            found = everything(MLP.load(path, backend="numpy"))
        except ValueError as error:
            found = str(error)
            refused += 1
        assert found == expected or "net.npz" in found, f"byte {i} changed the network"
    gc.collect()
    assert refused > 0.5 * len(content) / 3


@pytest.mark.parametrize("byte", [b"\x63", b"\x01"])
def test_a_file_that_claims_another_compression_or_a_password_is_refused_by_name(tmp_path, byte):
    path, content = saved(tmp_path)
    entry = content.rindex(b"PK\x01\x02")  # an entry of the directory: flags at byte 8, compression at byte 10
    at = entry + (8 if byte == b"\x01" else 10)
    path.write_bytes(content[:at] + byte + content[at + 1 :])
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")


class _Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return __import__("os").mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz"])
def test_a_pickle_is_refused_by_name_and_never_executed(tmp_path, kind):
    path, trap = tmp_path / "net.npz", tmp_path / "sprung"
    trapped = np.array([_Trap(trap)], dtype=object)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(_Trap(trap)))
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, trapped, allow_pickle=True)
    else:
        make("numpy").save(path)
        with np.load(path) as file:
            arrays = dict(file)
        arrays["params/0.weight"] = trapped
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")
    assert not trap.exists()


def test_a_foreign_file_is_refused_by_name(tmp_path):
    path = tmp_path / "net.npz"
    for write in (
        lambda: path.write_bytes(b"not a network at all"),
        lambda: np.savez(path, weight=np.ones(3)),
        lambda: np.savez(path, **{"bnkit.json": np.frombuffer(b"[1, 2]", np.uint8)}),
        lambda: np.savez(path, **{"bnkit.json": np.frombuffer(b"\xff{", np.uint8)}),
        lambda: path.write_text(json.dumps({"sizes": [3, 2]})),
    ):
        write()
        with pytest.raises(ValueError, match=r"net\.npz"):
            MLP.load(path, backend="numpy")


def test_a_plain_npy_file_is_refused_by_name(tmp_path):
    path = tmp_path / "net.npy"
    np.save(path, np.random.default_rng(0).normal(size=(5, 6)))
    with pytest.raises(ValueError, match=r"net\.npy"):
        MLP.load(path, backend="numpy")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_file_whose_arrays_do_not_fit_is_refused_by_name(tmp_path, change):
    path, _ = saved(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    if change == "missing":
        del arrays["state/1.running_mean"]
    elif change == "extra":
        arrays["params/9.weight"] = np.ones(3)
    else:
        arrays["params/0.weight"] = arrays["params/0.weight"][:, :1]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"net\.npz"):
        MLP.load(path, backend="numpy")


def test_a_saved_network_holds_no_pickle(backend, tmp_path):
    make(backend).save(tmp_path / "net.npz")
    with zipfile.ZipFile(tmp_path / "net.npz") as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            with archive.open(name) as file:
                assert np.lib.format.read_array(file, allow_pickle=False).dtype != object


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"net\.npz"):
        MLP.load(tmp_path / "net.npz", backend="numpy")


def test_repr_names_every_option(backend):
    model = make(backend, batch_norm={"decay": 0.5}, replicas=2, init=[0.1, "he"], seed=[3, 4], dropout=0.1)
    made = eval(repr(model))
    assert made.config == model.config
    assert made.backend is backend
