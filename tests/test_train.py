import copy
import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from bnkit import MLP, EarlyStopping, fit, optim
from bnkit.data import Dataset

# The same float64 sums, which a batched product or another library may order differently; training amplifies them.
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}


def dataset(rows=23, test_rows=11, inputs=5, seed=0) -> Dataset:
    """Every row is another one: its number stands in its first column."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows + test_rows, inputs)).astype(np.float32)
    x[:, 0] = np.arange(rows + test_rows) / (rows + test_rows)
    t = (x[:, 1] > 0) + (x[:, 2] > 0).astype(np.int64)
    return Dataset(x[:rows], t[:rows], x[rows:], t[rows:])


def make(backend, cls=MLP, **options) -> MLP:
    return cls((5, 6, 3), backend=backend, **{"dtype": "float64", **options})


def train(model, data=None, optimizer=None, **options):
    optimizer = optim.Adam(lr=0.01) if optimizer is None else optimizer
    return fit(
        model,
        dataset() if data is None else data,
        optimizer=optimizer,
        **{"epochs": 3, "batch_size": 5, **options},
    )


def everything(model: MLP) -> dict[str, bytes]:
    arrays = {**model.params, **model.state}
    return {
        k: np.array(a if isinstance(a, np.ndarray) else model.backend.to_numpy(a)).tobytes() for k, a in arrays.items()
    }


class Watched(MLP):
    """A network that notes each batch it is trained on: row numbers, step, loss."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen: list[tuple[list[int], int, np.ndarray]] = []

    def loss_and_grads(self, x, t, *, step=0):
        loss, grads = super().loss_and_grads(x, t, step=step)
        rows = np.rint(self.backend.to_numpy(x)[:, 0].astype(np.float64) * 34).astype(int)
        np.testing.assert_array_equal(self.backend.to_numpy(t), dataset().t_train[rows])  # each row with its label
        self.seen.append((rows.tolist(), step, np.array(self.backend.to_numpy(loss))))
        return loss, grads


# Epochs and batches


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


def test_order_is_the_same_on_every_backend(backend):
    models = [make(b, Watched) for b in (backend, "numpy")]
    for model in models:
        train(model)
    assert [s[:2] for s in models[0].seen] == [s[:2] for s in models[1].seen]


def test_steps_count_on_over_the_epochs(backend):
    model, optimizer = make(backend, Watched), optim.SGD()
    records = train(model, optimizer=optimizer)
    assert [step for _, step, _ in model.seen] == list(range(15))
    assert [r["step"] for r in records] == [5, 10, 15]
    assert optimizer.steps == 15


def test_training_is_loss_and_grads_and_update_by_hand(backend):
    data, rng = dataset(), np.random.default_rng
    model, by_hand = make(backend, dropout=0.3), make(backend, dropout=0.3)
    train(model, epochs=2, seed=4)
    optimizer = optim.Adam(lr=0.01)
    for epoch in range(2):
        order = rng([4, epoch]).permutation(23)
        for i in range(5):
            chosen = order[5 * i : 5 * i + 5]
            _, grads = by_hand.loss_and_grads(data.x_train[chosen], data.t_train[chosen], step=5 * epoch + i)
            optimizer.update(by_hand.params, grads)
    assert everything(model) == everything(by_hand)


def test_training_learns(backend):
    records = train(make(backend), epochs=30, optimizer=optim.Adam(lr=0.03))
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[-1]["train_accuracy"] > 0.8


def test_float_weights_serve_as_labels(backend):
    data = dataset()
    one_hot = Dataset(data.x_train, np.eye(3)[data.t_train], data.x_test, np.eye(3)[data.t_test])
    models = [make(backend), make(backend)]
    assert train(models[0], one_hot) == train(models[1], data)
    assert everything(models[0]) == everything(models[1])


# Records


def test_records_have_the_documented_fields(backend):
    records = train(make(backend))
    assert [list(r) for r in records] == [["epoch", "step", "loss", "train_accuracy", "test_accuracy"]] * 3
    assert [r["epoch"] for r in records] == [1, 2, 3]
    for r in records:
        assert [type(v) for v in r.values()] == [int, int, float, float, float]


def test_without_a_test_set_there_is_no_test_accuracy(backend):
    data = dataset()
    records = train(make(backend), (data.x_train, data.t_train))
    assert [list(r) for r in records] == [["epoch", "step", "loss", "train_accuracy"]] * 3


def test_loss_is_the_mean_over_the_rows_as_trained(backend):
    model = make(backend, Watched, dropout=0.3, weight_decay=0.1)
    records = train(model, epochs=2)
    for e, record in enumerate(records):
        expected = sum(len(rows) * float(loss) for rows, _, loss in model.seen[5 * e : 5 * e + 5]) / 23
        assert record["loss"] == pytest.approx(expected, rel=1e-14)  # five roundings


def test_accuracies_are_those_of_the_model_after_the_epoch(backend):
    data, model, found = dataset(), make(backend, dropout=0.3), []

    def note(record, m):
        found.append((float(m.accuracy(*data[:2])), float(m.accuracy(*data[2:]))))

    records = train(model, callbacks=[note])
    assert [(r["train_accuracy"], r["test_accuracy"]) for r in records] == found


def test_records_of_replicas_hold_a_list_with_one_value_each(backend):
    model = make(backend, replicas=3, seed=[0, 1, 0])
    records = train(model)
    for r in records:
        assert [type(r[k]) for k in ("epoch", "step")] == [int, int]
        for name in ("loss", "train_accuracy", "test_accuracy"):
            assert type(r[name]) is list
            assert [type(v) for v in r[name]] == [float] * 3
    for replica, seed in ((0, 0), (1, 1), (2, 0)):
        single = train(make(backend, seed=seed))
        for r, s in zip(records, single, strict=True):
            for name in ("loss", "train_accuracy", "test_accuracy"):
                np.testing.assert_allclose(r[name][replica], s[name], **ROUNDING)


def test_an_optimizer_may_have_one_lr_a_replica(backend):
    together = train(make(backend, replicas=2, seed=[0, 0]), optimizer=optim.Momentum(lr=[0.1, 0.001]))
    assert together[-1]["loss"][0] != together[-1]["loss"][1]
    for r, lr in enumerate((0.1, 0.001)):
        single = train(make(backend), optimizer=optim.Momentum(lr=lr))
        np.testing.assert_allclose([rec["loss"][r] for rec in together], [rec["loss"] for rec in single], **ROUNDING)


def test_a_diverged_training_is_recorded_without_a_warning(backend):
    model = make(backend, batch_norm=False, init=1e200)
    records = train(model, optimizer=optim.SGD(lr=1e200))
    assert len(records) == 3
    assert not np.isfinite(records[-1]["loss"])


def test_one_seed_is_one_training_on_every_backend(backend):
    ours, numpys = (train(make(b, dropout=0.3)) for b in (backend, "numpy"))
    for r, s in zip(ours, numpys, strict=True):
        np.testing.assert_allclose(list(r.values()), list(s.values()), **ROUNDING)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_the_same_training_gives_the_same_bits(backend, name):
    models = [make(backend, dropout=0.3) for _ in range(2)]
    records = [train(m, optimizer=getattr(optim, name)(lr=0.01), seed=6) for m in models]
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


# What it refuses

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
    "lrs of replicas that are not": ({"optimizer": optim.SGD(lr=[0.1, 0.2])}, ValueError, "one lr for each"),
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
        ({"batch_norm": {}}, 1),
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


# Callbacks


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
        train(make(backend), (X, T), callbacks=[EarlyStopping()])


@pytest.mark.parametrize(
    ("options", "error"),
    [({"patience": 0}, ValueError), ({"patience": 1.5}, TypeError), ({"min_delta": -0.1}, ValueError)],
)
def test_early_stopping_refuses_settings_out_of_bounds(options, error):
    with pytest.raises(error, match="|".join(options)):
        EarlyStopping(**options)


# Checkpoints

SETTINGS = {"dropout": 0.3, "weight_decay": 0.01, "batch_norm": {"decay": None}}

CHILD = """
    import os, signal, sys
    from bnkit import optim
    from test_train import SETTINGS, make, train

    kill = lambda: os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    name, when, path = sys.argv[1:]
    optimizer, replace, calls = getattr(optim, name)(lr=0.01), os.replace, []
    update = optimizer.update

    def count(*args):
        calls.append(args)
        if len(calls) == 13:  # in the middle of the third epoch
            kill()
        update(*args)

    def replaced(*args):
        calls.append(args)
        if len(calls) == 3:  # the third file is written and not yet in place
            kill()
        replace(*args)

    if when == "step":
        optimizer.update = count
    else:
        os.replace = replaced
    train(make("numpy", **SETTINGS), optimizer=optimizer, epochs=6, seed=2, checkpoint=path)
    sys.exit("nobody killed me")
"""


@pytest.mark.parametrize("when", ["step", "write"])
@pytest.mark.parametrize("name", ["Adam", "Nesterov", "RMSProp"])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, name, when):
    path, script = tmp_path / "run.npz", tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    child = subprocess.run(
        [sys.executable, str(script), name, when, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode != 0
    assert child.stderr == ""
    options = {"epochs": 6, "seed": 2}
    whole, resumed = make("numpy", **SETTINGS), make("numpy", Watched, **SETTINGS)
    expected = train(whole, optimizer=getattr(optim, name)(lr=0.01), **options)
    optimizer = getattr(optim, name)(lr=0.01)
    assert train(resumed, optimizer=optimizer, checkpoint=path, **options) == expected
    assert everything(resumed) == everything(whole)
    assert len(resumed.seen) == 4 * 5  # two epochs were done
    assert optimizer.steps == 30


@pytest.mark.parametrize("name", ["SGD", "Momentum", "AdaGrad", "Adam", "AdamW"])
def test_a_training_in_two_parts_is_the_training_in_one(backend, tmp_path, name):
    path, options = tmp_path / "run.npz", {**SETTINGS, "replicas": 2, "seed": [0, 1]}
    whole = make(backend, **options)
    expected = train(whole, optimizer=getattr(optim, name)(lr=[0.1, 0.01]), epochs=4)
    for epochs in (1, 3, 4):
        parts = make(backend, **options)
        records = train(parts, optimizer=getattr(optim, name)(lr=[0.1, 0.01]), epochs=epochs, checkpoint=path)
        assert records == expected[:epochs]
    assert everything(parts) == everything(whole)


def test_a_checkpoint_does_not_change_the_training(backend, tmp_path):
    models = [make(backend, **SETTINGS) for _ in range(2)]
    assert train(models[0], checkpoint=tmp_path / "run.npz") == train(models[1])
    assert everything(models[0]) == everything(models[1])
    assert os.listdir(tmp_path) == ["run.npz"]


def test_a_finished_training_is_not_trained_again(backend, tmp_path):
    first, again = make(backend), make(backend, Watched)
    records = train(first, checkpoint=tmp_path / "run.npz")
    assert train(again, checkpoint=tmp_path / "run.npz") == records
    assert again.seen == []
    assert everything(again) == everything(first)


def test_a_diverged_training_goes_on_from_its_checkpoint(backend, tmp_path):
    models = []
    for epochs in (2, 3):
        models.append(make(backend, batch_norm=False, init=1e200))
        records = train(models[-1], optimizer=optim.SGD(lr=1e200), epochs=epochs, checkpoint=tmp_path / "run.npz")
    assert len(records) == 3
    assert np.isnan(records[-1]["loss"])


def test_a_checkpoint_of_another_backend_is_gone_on_from(backend, tmp_path):
    path = tmp_path / "run.npz"
    train(make("numpy", dropout=0.3), epochs=2, checkpoint=path)
    resumed = train(make(backend, dropout=0.3), epochs=4, checkpoint=path)
    for r, s in zip(resumed, train(make("numpy", dropout=0.3), epochs=4), strict=True):
        np.testing.assert_allclose(list(r.values()), list(s.values()), **ROUNDING)


OTHERS = {
    "batch_size": ({}, {"batch_size": 6}),
    "seed": ({}, {"seed": 1}),
    "optimizer": ({}, {"optimizer": optim.SGD(lr=0.01)}),
    "lr": ({}, {"optimizer": optim.Adam(lr=0.02)}),
    "dropout": ({"dropout": 0.1}, {}),
    "weights": ({"seed": 1}, {}),
    "init": ({"init": 0.1}, {}),
    "replicas": ({"replicas": 2}, {}),
    "data": ({}, {"data": dataset(seed=1)}),
    "fewer rows": ({}, {"data": (X[:-1], T[:-1])}),
    "labels": ({}, {"data": (X, (T + 1) % 3)}),
    "dtype": ({"dtype": "float32"}, {}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_going_on_with_another_setting_is_refused_before_anything_moves(backend, tmp_path, other):
    path, (model_options, options) = tmp_path / "run.npz", OTHERS[other]
    train(make(backend), optimizer=optim.Adam(lr=0.01), checkpoint=path)
    content, model = path.read_bytes(), make(backend, **model_options)
    before, options = everything(model), {"optimizer": optim.Adam(lr=0.01), **options}
    with pytest.raises(ValueError, match=r"run\.npz must be of the same training.* differ"):
        train(model, epochs=5, checkpoint=path, **options)
    assert everything(model) == before
    assert (options["optimizer"].steps, options["optimizer"].state) == (0, {})
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"something else", None])
def test_a_checkpoint_that_is_none_is_refused_and_left_alone(backend, tmp_path, content):
    path = tmp_path / "run.npz"
    if content is None:
        make(backend).save(path)
    else:
        path.write_bytes(content)
    content, model, before = path.read_bytes(), make(backend), everything(make(backend))
    with pytest.raises(ValueError, match=r"run\.npz"):
        train(model, checkpoint=path)
    assert path.read_bytes() == content
    assert everything(model) == before


def test_a_checkpoint_in_a_missing_folder_is_refused_before_anything_moves(backend, tmp_path):
    model, before, optimizer = make(backend), everything(make(backend)), optim.Adam()
    with pytest.raises((OSError, ValueError), match="missing"):
        train(model, optimizer=optimizer, checkpoint=tmp_path / "missing" / "run.npz")
    assert everything(model) == before
    assert optimizer.steps == 0


def test_the_checkpoint_is_written_before_the_callbacks_are_called(backend, tmp_path):
    path, model = tmp_path / "run.npz", make(backend)

    def fail(record, m):
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        train(model, checkpoint=path, callbacks=[fail])
    assert train(make(backend), epochs=2, checkpoint=path) == train(make(backend), epochs=2)


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
