"""The callbacks of `fit`, and EarlyStopping among them."""

import itertools

import numpy as np
import pytest
from small_mlp import everything
from small_training import dataset, make, train

from bnkit import EarlyStopping, optim


def test_callbacks_are_called_with_the_record_and_the_model(backend):
    model, calls = make(backend), []
    records = train(model, callbacks=[lambda r, m: calls.append((r, m)), lambda r, m: calls.append((r, m))])
    assert [r for r, _ in calls] == [r for r in records for _ in range(2)]
    assert all(m is model for _, m in calls)


@pytest.mark.parametrize("position", [0, 1])
def test_true_from_any_callback_ends_the_training(backend, position):
    calls = []
    callbacks = [lambda r, m: calls.append(r["epoch"])]
    callbacks.insert(position, lambda r, m: r["epoch"] == 2)
    records = train(make(backend), epochs=5, callbacks=callbacks)
    assert [r["epoch"] for r in records] == [1, 2]
    assert calls == [1, 2]  # the other one is called in the last epoch too


def run_of(values, stopping, name="test_accuracy") -> int:
    """The epoch in which `stopping` ends a training with these values, 0 if it does not."""
    for epoch, value in enumerate(values, 1):
        if stopping({"epoch": epoch, name: value}, None):
            return epoch
    return 0


@pytest.mark.parametrize(
    ("values", "patience", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, 0),
        ([0.1, 0.2, 0.2], 1, 3),
        ([0.5, 0.4, 0.3, 0.2], 3, 4),
        ([0.5, 0.4, 0.6, 0.5, 0.5], 2, 5),
        ([0.5, 0.4, 0.45, 0.49, 0.6], 5, 0),
        ([float("nan")] * 4, 2, 2),
        ([0.5, float("nan"), 0.6, 0.7], 2, 0),
    ],
)
def test_early_stopping_waits_for_a_better_accuracy(values, patience, expected):
    assert run_of(values, EarlyStopping(patience=patience)) == expected


def test_early_stopping_waits_for_a_lower_loss():
    assert run_of([3.0, 2.0, 1.0, 1.5, 1.2], EarlyStopping("loss", patience=2), "loss") == 5
    assert run_of([1.0, 2.0, 3.0], EarlyStopping("loss", patience=2), "loss") == 3
    assert run_of([3.0, 2.0, 1.0], EarlyStopping("loss", patience=1), "loss") == 0


def test_early_stopping_counts_only_what_exceeds_min_delta():
    values = [0.5, 0.55, 0.59, 0.7]
    assert run_of(values, EarlyStopping(patience=2, min_delta=0.1)) == 3
    assert run_of(values, EarlyStopping(patience=2)) == 0


def test_early_stopping_waits_until_no_replica_improves():
    assert run_of([[0.2, 0.4], [0.5, 0.2], [0.1, 0.4]], EarlyStopping(patience=1)) == 3
    assert run_of([[0.2, 0.4], [0.1, 0.5], [0.3, 0.1], [0.3, 0.5]], EarlyStopping(patience=1)) == 4
    assert run_of([[np.nan, 0.4], [np.nan, 0.5], [np.nan, 0.1]], EarlyStopping(patience=1)) == 3


def test_a_number_for_the_monitor_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"monitor must be the name.*got 2; write EarlyStopping\(patience=2\)"):
        EarlyStopping(2)


def test_the_repr_of_early_stopping_is_the_call_that_makes_it():
    stopping = EarlyStopping("test_loss", patience=3, restore_best=True)
    assert repr(stopping) == "EarlyStopping('test_loss', patience=3, min_delta=0, restore_best=True)"
    assert repr(eval(repr(stopping))) == repr(stopping)


def test_early_stopping_ends_a_training(backend):
    records = train(make(backend), epochs=9, optimizer=optim.SGD(lr=0.0), callbacks=[EarlyStopping(patience=2)])
    assert len(records) in (3, 4)  # the running statistics alone may improve the second epoch


def test_early_stopping_refuses_a_monitor_that_no_record_has(backend):
    model = make(backend)
    before = everything(model)
    with pytest.raises(ValueError, match=r"monitor must be one of.*test_accuracy.*'accuracy'"):
        train(model, callbacks=[EarlyStopping("accuracy")])
    with pytest.raises(ValueError, match=r"monitor.*'test_accuracy'"):
        train(model, dataset()[:2], callbacks=[EarlyStopping()])
    assert everything(model) == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"patience": 0}, ValueError),
        ({"patience": 1.5}, TypeError),
        ({"min_delta": -0.1}, ValueError),
        ({"restore_best": 1}, TypeError),
        ({"monitor": 2}, TypeError),
    ],
)
def test_early_stopping_refuses_settings_out_of_bounds(options, error):
    with pytest.raises(error, match="|".join(options)):
        EarlyStopping(**options)


def test_early_stopping_counts_on_over_a_resumed_training(backend, tmp_path):
    path, still = tmp_path / "run.npz", {"batch_norm": False}
    options = {"optimizer": optim.SGD(lr=0.0)}
    assert len(train(make(backend, **still), epochs=2, checkpoint=path, **options)) == 2
    options = {"optimizer": optim.SGD(lr=0.0)}
    records = train(make(backend, **still), epochs=9, checkpoint=path, callbacks=[EarlyStopping(patience=3)], **options)
    assert len(records) == 4
    options = {"optimizer": optim.SGD(lr=0.0)}
    records = train(make(backend, **still), epochs=9, checkpoint=path, callbacks=[EarlyStopping(patience=3)], **options)
    assert len(records) == 4  # it had stopped


def test_one_early_stopping_starts_anew_with_each_resumed_training(backend, tmp_path):
    path, stopping = tmp_path / "run.npz", EarlyStopping("loss", patience=2)
    trained = {"optimizer": optim.SGD(lr=0.05), "checkpoint": path, "callbacks": [stopping], "batch_size": 23}
    assert len(train(make(backend, batch_norm=False), epochs=2, **trained)) == 2
    trained["optimizer"] = optim.SGD(lr=0.05)
    records = train(make(backend, batch_norm=False), epochs=6, **trained)
    assert all(b["loss"] < a["loss"] for a, b in itertools.pairwise(records))
    assert len(records) == 6  # every epoch was better than the one before
