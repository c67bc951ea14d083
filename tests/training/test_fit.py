"""What `fit` does in each epoch, and what it records."""

import copy

import numpy as np
import pytest
from small_mlp import everything
from small_training import ROUNDING, Watched, dataset, make, train

from bnkit import optim
from bnkit.data import Dataset
from bnkit.nn.init import generator


def test_an_epoch_sees_every_row_once_and_its_last_batch_is_smaller(backend):
    model = make(backend, Watched)
    train(model, epochs=2)
    assert [len(rows) for rows, _, _ in model.seen] == [5, 5, 5, 5, 3] * 2
    for epoch in (model.seen[:5], model.seen[5:]):
        assert sorted(row for rows, _, _ in epoch for row in rows) == list(range(23))


def test_a_batch_of_all_rows_is_one_step_an_epoch(backend):
    model = make(backend, Watched)
    records = train(model, batch_size=23)
    assert [len(rows) for rows, _, _ in model.seen] == [23] * 3
    assert [r["step"] for r in records] == [1, 2, 3]


def test_batches_that_divide_the_rows_leave_no_remainder(backend):
    model = make(backend, Watched)
    train(model, (dataset().x_train[:20], dataset().t_train[:20]), epochs=1)
    assert [len(rows) for rows, _, _ in model.seen] == [5] * 4


def test_each_epoch_has_its_own_order_drawn_by_the_seed_alone(backend):
    def orders(seed, cls_options=None, **options):
        model = make(backend, Watched, **(cls_options or {}))
        train(model, seed=seed, **options)
        return [[row for rows, _, _ in model.seen[5 * e : 5 * e + 5] for row in rows] for e in range(3)]

    first = orders(0)
    assert len({tuple(order) for order in first}) == 3
    assert list(range(23)) not in first
    assert orders(0, {"seed": 8}, optimizer=optim.SGD()) == first
    assert all(a != b for a, b in zip(orders(1), first, strict=True))


def test_steps_count_on_over_the_epochs(backend):
    model, optimizer = make(backend, Watched), optim.SGD()
    records = train(model, optimizer=optimizer)
    assert [step for _, step, _ in model.seen] == list(range(15))
    assert [r["step"] for r in records] == [5, 10, 15]
    assert optimizer.steps == 15


def test_training_is_loss_and_grads_and_update_by_hand(backend):
    data = dataset()
    model, by_hand = make(backend, dropout=0.3), make(backend, dropout=0.3)
    train(model, epochs=2, seed=4)
    optimizer = optim.Adam(lr=0.01)
    for epoch in range(2):
        order = generator("order", 4, epoch).permutation(23)
        for i in range(5):
            chosen = order[5 * i : 5 * i + 5]
            _, grads = by_hand.loss_and_grads(data.x_train[chosen], data.t_train[chosen], step=5 * epoch + i)
            optimizer.update(by_hand.params, grads)
    assert everything(model) == everything(by_hand)


def test_training_learns(backend):
    records = train(make(backend), epochs=30, optimizer=optim.Adam(lr=0.03))
    # Chance is a loss of log 3 = 1.1 and 10 of 23 rows; the training goes from 1.19 to 0.53 and gets every row right.
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[-1]["train_accuracy"] > 0.8


def test_float_weights_serve_as_labels(backend):
    data = dataset()
    one_hot = Dataset(data.x_train, np.eye(3)[data.t_train], data.x_test, np.eye(3)[data.t_test])
    models = [make(backend), make(backend)]
    assert train(models[0], one_hot) == train(models[1], data)
    assert everything(models[0]) == everything(models[1])


def test_records_have_the_documented_fields(backend):
    records = train(make(backend))
    names = ["epoch", "step", "loss", "train_accuracy", "test_accuracy", "test_loss", "diverged"]
    assert [list(r) for r in records] == [names] * 3
    assert [r["epoch"] for r in records] == [1, 2, 3]
    for r in records:
        assert [type(v) for v in r.values()] == [int, int, float, float, float, float, bool]


def test_without_a_test_set_there_is_no_number_of_it(backend):
    data = dataset()
    records = train(make(backend), (data.x_train, data.t_train))
    assert [list(r) for r in records] == [["epoch", "step", "loss", "train_accuracy", "diverged"]] * 3


def test_loss_is_the_mean_over_the_rows_as_trained(backend):
    model = make(backend, Watched, dropout=0.3, weight_decay=0.1)
    records = train(model, epochs=2)
    for e, record in enumerate(records):
        expected = sum(len(rows) * float(loss) for rows, _, loss in model.seen[5 * e : 5 * e + 5]) / 23
        assert record["loss"] == pytest.approx(expected, rel=1e-14)  # five roundings


def test_accuracies_and_test_loss_are_those_of_the_model_after_the_epoch(backend):
    data, model, expected = dataset(), make(backend, dropout=0.3, weight_decay=0.1), []

    def note(record, m):
        numbers = m.accuracy(*data[:2]), m.accuracy(*data[2:]), m.loss(*data[2:])
        expected.append(tuple(map(float, numbers)))

    records = train(model, callbacks=[note])
    assert [(r["train_accuracy"], r["test_accuracy"], r["test_loss"]) for r in records] == expected


def test_records_of_replicas_hold_a_list_with_one_value_each(backend):
    model = make(backend, replicas=3, seed=[0, 1, 0])
    records = train(model)
    for r in records:
        assert [type(r[k]) for k in ("epoch", "step")] == [int, int]
        for name in ("loss", "train_accuracy", "test_accuracy", "test_loss"):
            assert type(r[name]) is list
            assert [type(v) for v in r[name]] == [float] * 3
        assert r["diverged"] == [False] * 3
    for replica, seed in ((0, 0), (1, 1), (2, 0)):
        single = train(make(backend, seed=seed))
        for r, s in zip(records, single, strict=True):
            for name in ("loss", "train_accuracy", "test_accuracy", "test_loss"):
                np.testing.assert_allclose(r[name][replica], s[name], **ROUNDING)


def test_an_optimizer_may_have_one_lr_a_replica(backend):
    together = train(make(backend, replicas=2, seed=[0, 0]), optimizer=optim.Momentum(lr=[0.1, 0.001]))
    assert together[-1]["loss"][0] != together[-1]["loss"][1]
    for r, lr in enumerate((0.1, 0.001)):
        single = train(make(backend), optimizer=optim.Momentum(lr=lr))
        np.testing.assert_allclose([rec["loss"][r] for rec in together], [rec["loss"] for rec in single], **ROUNDING)


def test_one_seed_is_one_training_on_every_backend(backend):
    ours, numpys = (train(make(b, dropout=0.3)) for b in (backend, "numpy"))
    for r, s in zip(ours, numpys, strict=True):
        np.testing.assert_allclose(list(r.values()), list(s.values()), **ROUNDING)


def test_the_same_training_gives_the_same_bits(backend):
    models = [make(backend, dropout=0.3) for _ in range(2)]
    records = [train(m, optimizer=optim.Adam(lr=0.01), seed=6) for m in models]
    assert records[0] == records[1]
    assert everything(models[0]) == everything(models[1])


def test_no_epochs_are_no_training(backend):
    model = make(backend)
    before = everything(model)
    assert train(model, epochs=0) == []
    assert everything(model) == before


def test_data_are_left_untouched(backend):
    data = dataset()
    kept = copy.deepcopy(data)
    for a in data:
        a.flags.writeable = False
    train(make(backend), data)
    assert all(np.array_equal(a, b) for a, b in zip(data, kept, strict=True))
