"""What an MLP refuses, before anything moves."""

import array_api_strict
import numpy as np
import pytest
from small_mlp import ROWS, SIZES, batch, everything, make

from bnkit import MLP, get_backend

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
    (
        "negative weights",
        lambda x, t: (x, np.eye(3)[t] - 1),
        ValueError,
        r"t must hold.*-1.0 at \[0, .\]: MLP classifies",
    ),
    ("weights of NaN", lambda x, t: (x, np.eye(3)[t] * np.nan), ValueError, "t must hold finite weights.*nan"),
    ("infinite weights", lambda x, t: (x, np.where(np.eye(3)[t], np.inf, 0)), ValueError, "t must hold finite.*inf"),
    (
        "a row without weight",
        lambda x, t: (x, np.eye(3)[t] * [0, 1, 1]),
        ValueError,
        "t must have a weight above 0 in each row",
    ),
    ("real targets", lambda x, t: (x, x[:, :1]), ValueError, "t must be.*MLP classifies"),
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
        ((5, 4, 1), {}, ValueError, r"sizes must end with 2 or more classes, got \(5, 4, 1\): MLP classifies"),
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
