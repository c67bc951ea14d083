"""What `fit` refuses, before anything moves."""

import numpy as np
import pytest
from small_mlp import everything
from small_training import Watched, dataset, make, train

from bnkit import MLP, optim

X, T, X_TEST, T_TEST = dataset()
MISTAKES = {
    "batch_size 0": ({"batch_size": 0}, ValueError, "batch_size"),
    "batch_size above the rows": ({"batch_size": 24}, ValueError, "batch_size.*23.*24"),
    "batch_size a float": ({"batch_size": 5.0}, TypeError, "batch_size"),
    "epochs negative": ({"epochs": -1}, ValueError, "epochs"),
    "epochs a float": ({"epochs": 2.0}, TypeError, "epochs"),
    "seed negative": ({"seed": -1}, ValueError, "seed"),
    "seed None": ({"seed": None}, TypeError, "seed"),
    "batches of one row": ({"batch_size": 1}, ValueError, "batch_size.*1 row"),
    "a last batch of one row": ({"batch_size": 11}, ValueError, "batch_size.*1 row.*11 for 23"),
    "data alone": ({"data": X}, TypeError, "data"),
    "three arrays": ({"data": (X, T, X_TEST)}, TypeError, "data"),
    "lists": ({"data": (X.tolist(), T.tolist())}, TypeError, "data"),
    "labels too few": ({"data": (X, T[:-1])}, ValueError, r"t must be \(23,\).*22"),
    "data in three dimensions": ({"data": (X[None], T[None])}, ValueError, "data"),
    "data of another width": ({"data": (X[:, :4], T)}, ValueError, "x must be"),
    "integer data": ({"data": (X.astype(int), T)}, TypeError, "x must be"),
    "a label too large": ({"data": (X, np.where(np.arange(23) == 17, 3, T))}, ValueError, "labels from 0 to 2.*3"),
    "a negative label": ({"data": (X, np.where(np.arange(23) == 17, -1, T))}, ValueError, "labels from 0 to 2.*-1"),
    "a test label too large": ({"data": (X, T, X_TEST, T_TEST + 1)}, ValueError, "labels from 0 to 2.*3"),
    "test data of another width": ({"data": (X, T, X_TEST[:, :4], T_TEST)}, ValueError, "x must be"),
    "an optimizer's name": ({"optimizer": "adam"}, TypeError, "optimizer"),
    "lrs of replicas that are not": ({"optimizer": optim.SGD(lr=[0.1, 0.2])}, ValueError, "one lr for"),
    "a callback that is none": ({"callbacks": [3]}, TypeError, "callback"),
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


def test_softmax_regression_trains_on_single_rows(backend):
    records = train(MLP((5, 3), backend=backend), epochs=1, batch_size=1)
    assert records[0]["step"] == 23
