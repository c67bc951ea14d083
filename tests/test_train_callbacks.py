"""The callbacks of `fit`, and EarlyStopping among them."""

import itertools

import pytest
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


def test_early_stopping_takes_the_mean_of_replicas():
    assert run_of([[0.2, 0.4], [0.5, 0.2], [0.1, 0.4]], EarlyStopping(patience=1)) == 3


def test_early_stopping_ends_a_training(backend):
    records = train(make(backend), epochs=9, optimizer=optim.SGD(lr=0.0), callbacks=[EarlyStopping(patience=2)])
    assert len(records) in (3, 4)  # the running statistics alone may improve the second epoch


def test_early_stopping_refuses_a_monitor_that_no_record_has(backend):
    with pytest.raises(ValueError, match=r"monitor must be one of.*test_accuracy.*'accuracy'"):
        train(make(backend), callbacks=[EarlyStopping("accuracy")])
    with pytest.raises(ValueError, match=r"monitor.*'test_accuracy'"):
        train(make(backend), dataset()[:2], callbacks=[EarlyStopping()])


@pytest.mark.parametrize(
    ("options", "error"),
    [({"patience": 0}, ValueError), ({"patience": 1.5}, TypeError), ({"min_delta": -0.1}, ValueError)],
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
