"""What `fit` refuses, before anything moves."""

import numpy as np
import pytest
from small_mlp import everything
from small_training import Watched, dataset, make, train

from bnkit import MLP, EarlyStopping, optim

X, T, X_TEST, T_TEST = dataset()
MISTAKES = {
    "batch_size 0": ({"batch_size": 0}, ValueError, "batch_size"),
    "batch_size above the rows": ({"batch_size": 24}, ValueError, "batch_size.*23.*24"),
    "batch_size a float": ({"batch_size": 5.0}, TypeError, "batch_size"),
    "epochs negative": ({"epochs": -1}, ValueError, "epochs"),
    "epochs a float": ({"epochs": 2.0}, TypeError, "epochs"),
    "seed negative": ({"seed": -1}, ValueError, "seed"),
    "seed None": ({"seed": None}, TypeError, "seed"),
    "batches of one row": ({"batch_size": 1}, ValueError, "batch_size.*1 row.*; choose another"),
    "a last batch of one row": ({"batch_size": 11}, ValueError, "batch_size.*1 row.*11 for 23.*drop_last=True"),
    "data alone": ({"data": X}, TypeError, "data"),
    "three arrays": ({"data": (X, T, X_TEST)}, TypeError, "data"),
    "lists": ({"data": (X.tolist(), T.tolist())}, TypeError, "data"),
    "labels too few": ({"data": (X, T[:-1])}, ValueError, r"t must be \(23,\).*x has 23 rows, t has 22"),
    "a list in place of the tuple": (
        {"data": [X, T]},
        TypeError,
        r"data must be a tuple.*list of 2 arrays; pass \(x, t\)",
    ),
    "a list in place of a Dataset": ({"data": list(dataset())}, TypeError, "data must be a tuple.*pass Dataset"),
    "labels as a list": ({"data": (X, T.tolist())}, TypeError, "data must hold arrays, got ndarray, list; convert"),
    "NaN in x": ({"data": (np.where(X[7, 2] == X, np.nan, X), T)}, ValueError, r"x must hold finite.*nan at \[7, 2\]"),
    "infinity in x": ({"data": (np.where(X[7, 2] == X, -np.inf, X), T)}, ValueError, "x must hold finite.*-inf"),
    "NaN in the test set": (
        {"data": (X, T, X_TEST * np.nan, T_TEST)},
        ValueError,
        "x of the test set must hold finite",
    ),
    "NaN in t": ({"data": (X, np.eye(3)[T] * np.nan)}, ValueError, "t must hold finite weights"),
    "negative weights": (
        {"data": (X, np.eye(3)[T] - 0.5)},
        ValueError,
        "t must hold finite weights of at least 0.*-0.5.*MLP",
    ),
    "a row of zeros in t": (
        {"data": (X, np.eye(3)[T] * (X[:, :1] > 0))},
        ValueError,
        r"weight above 0.*zeros at \[0\]",
    ),
    "drop_last a number": ({"drop_last": 1}, TypeError, "drop_last"),
    "data in three dimensions": ({"data": (X[None], T[None])}, ValueError, "data"),
    "data of another width": ({"data": (X[:, :4], T)}, ValueError, "x must be"),
    "integer data": ({"data": (X.astype(int), T)}, TypeError, "x must be"),
    "a label too large": ({"data": (X, np.where(np.arange(23) == 17, 3, T))}, ValueError, "labels from 0 to 2.*3"),
    "a negative label": ({"data": (X, np.where(np.arange(23) == 17, -1, T))}, ValueError, "labels from 0 to 2.*-1"),
    "a test label too large": ({"data": (X, T, X_TEST, T_TEST + 1)}, ValueError, "labels from 0 to 2.*3"),
    "test data of another width": ({"data": (X, T, X_TEST[:, :4], T_TEST)}, ValueError, "x must be"),
    "an optimizer's name": ({"optimizer": "rmsprop"}, TypeError, r"optimizer must be.*write bnkit.optim.RMSProp\(\)"),
    "another name": ({"optimizer": "lbfgs"}, TypeError, r"optimizer must be.*'lbfgs'; write bnkit.optim.Adam\(\)"),
    "an optimizer's class": ({"optimizer": optim.SGD}, TypeError, r"got the class SGD; write bnkit.optim.SGD\(\)"),
    "no optimizer": ({"optimizer": 0.1}, TypeError, r"optimizer must be.*got 0.1; write bnkit.optim.Adam\(\)"),
    "lrs of replicas that are not": ({"optimizer": optim.SGD(lr=[0.1, 0.2])}, ValueError, "one lr for"),
    "a callback that is none": ({"callbacks": [3]}, TypeError, "callback"),
    "a callback alone": (
        {"callbacks": EarlyStopping()},
        TypeError,
        r"callbacks must be a sequence.*write callbacks=\[Early",
    ),
    "a callback's class": (
        {"callbacks": [EarlyStopping]},
        TypeError,
        r"got the class EarlyStopping; write EarlyStopping",
    ),
    "two that restore": ({"callbacks": [EarlyStopping(restore_best=True)] * 2}, ValueError, "callbacks.*at most one"),
    "no such monitor": (
        {"callbacks": [EarlyStopping("val_loss")]},
        ValueError,
        "monitor must be one of loss.*test_loss",
    ),
    "no test set to monitor": ({"data": (X, T), "callbacks": [EarlyStopping("test_loss")]}, ValueError, "monitor must"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_anything_moves(backend, mistake):
    options, error, says = MISTAKES[mistake]
    model, before = make(backend), everything(make(backend))
    options = {"optimizer": optim.Adam(), **options}
    steps = getattr(options["optimizer"], "steps", 0)
    with pytest.raises(error, match=says):
        train(model, **options)
    assert everything(model) == before
    assert getattr(options["optimizer"], "steps", 0) == steps


@pytest.mark.parametrize(
    ("options", "batch_size"),
    [
        ({"batch_norm": {"ghost": 4}}, 13),  # 13 = 3 * 4 + 1
        ({"batch_norm": {"ghost": 1}}, 5),
        ({"batch_norm": {"decay": None}}, 2),  # 23 = 11 * 2 + 1
    ],
)
def test_a_ghost_batch_of_one_row_is_refused_before_anything_moves(backend, options, batch_size):
    model, before = make(backend, **options), everything(make(backend, **options))
    with pytest.raises(ValueError, match="1 row"):
        train(model, batch_size=batch_size)
    assert everything(model) == before


@pytest.mark.parametrize(
    "options",
    [
        {"batch_norm": False},
        {"batch_norm": {"correction": 0}},
        {"batch_norm": {"track": False}},
    ],
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_batch_of_one_row_is_welcome_where_no_variance_needs_two(backend, options, batch_size):
    model = make(backend, Watched, **options)
    train(model, epochs=1, batch_size=batch_size)
    assert len(model.seen[-1][0]) == 1


def test_labels_of_another_library_are_refused_by_name(backend):
    class Tensor:
        dtype, shape, ndim = T.dtype, T.shape, 1

    with pytest.raises(TypeError, match=r"t must be an array of one of the backends.*Tensor"):
        train(make(backend), (X, Tensor()))


def test_without_the_last_batch_every_update_has_as_many_rows(backend):
    model = make(backend, Watched)
    records = train(model, batch_size=11, drop_last=True)
    assert [len(rows) for rows, _, _ in model.seen] == [11, 11] * 3
    assert [r["step"] for r in records] == [2, 4, 6]
    left_out = set(range(23))
    for i in range(0, 6, 2):
        left_out &= set(range(23)) - {row for rows, _, _ in model.seen[i : i + 2] for row in rows}
    assert not left_out  # another row each epoch


def test_batches_that_divide_the_rows_have_no_last_one_to_leave_out(backend):
    data = dataset().x_train[:20], dataset().t_train[:20]
    assert train(make(backend), data, drop_last=True) == train(make(backend), data)


def test_a_resumed_training_must_leave_out_the_last_batch_as_before(backend, tmp_path):
    path = tmp_path / "run.npz"
    for first, then in ((True, False), (False, True)):
        train(make(backend), epochs=1, checkpoint=path, drop_last=first)
        with pytest.raises(ValueError, match="differs in drop_last"):
            train(make(backend), checkpoint=path, drop_last=then)
        path.unlink()
    expected = train(make(backend), drop_last=True)
    train(make(backend), epochs=1, checkpoint=path, drop_last=True)
    assert train(make(backend), checkpoint=path, drop_last=True) == expected


def test_an_optimizer_of_another_model_is_refused_before_anything_moves(backend):
    optimizer, model = optim.Adam(), make(backend, seed=1)
    train(make(backend), optimizer=optimizer)
    before, memory = everything(model), {k: backend.to_numpy(a).copy() for k, a in optimizer.state.items()}
    with pytest.raises(ValueError, match=r"new optimizer for each model, or call reset\(\)"):
        train(model, optimizer=optimizer)
    assert everything(model) == before
    assert all(np.array_equal(backend.to_numpy(optimizer.state[k]), a) for k, a in memory.items())
    optimizer.reset()
    expected = train(make(backend, seed=1), optimizer=optim.Adam())
    assert train(model, optimizer=optimizer) == expected


def test_eps_that_is_0_in_float32_is_refused_before_anything_moves(backend):
    model = make(backend, dtype="float32")
    before = everything(model)
    with pytest.raises(ValueError, match=r"eps must be above 0 in float32.*1e-46"):
        train(model, optimizer=optim.Adam(eps=1e-46))
    assert everything(model) == before
    train(make(backend, dtype="float64"), optimizer=optim.Adam(eps=1e-46), epochs=1)


def test_softmax_regression_trains_on_single_rows(backend):
    records = train(MLP((5, 3), backend=backend), epochs=1, batch_size=1)
    assert records[0]["step"] == 23
