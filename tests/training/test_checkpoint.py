"""Trainings that go on from a checkpoint, and the checkpoints that are refused."""

import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from places import HELPERS
from small_mlp import everything
from small_training import ROUNDING, SETTINGS, Watched, dataset, make, train

from bnkit import optim
from bnkit.nn import archive

CHILD = """
    import os, signal, sys
    from bnkit import optim
    from small_training import SETTINGS, make, train

    kill = lambda: os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    when, path = sys.argv[1:]
    optimizer, replace, calls = optim.Adam(lr=0.01), os.replace, []
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
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, when):
    path, script = tmp_path / "run.npz", tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), *filter(None, sys.path)])}
    child = subprocess.run(
        [sys.executable, str(script), when, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode != 0
    assert child.stderr == ""
    options = {"epochs": 6, "seed": 2}
    whole, resumed = make("numpy", **SETTINGS), make("numpy", Watched, **SETTINGS)
    expected = train(whole, optimizer=optim.Adam(lr=0.01), **options)
    optimizer = optim.Adam(lr=0.01)
    assert train(resumed, optimizer=optimizer, checkpoint=path, **options) == expected
    assert everything(resumed) == everything(whole)
    assert len(resumed.seen) == 4 * 5  # two epochs were done
    assert optimizer.steps == 30


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW"])
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


def test_a_checkpoint_of_another_backend_is_gone_on_from(backend, tmp_path):
    path = tmp_path / "run.npz"
    train(make("numpy", dropout=0.3), epochs=2, checkpoint=path)
    resumed = train(make(backend, dropout=0.3), epochs=4, checkpoint=path)
    for r, s in zip(resumed, train(make("numpy", dropout=0.3), epochs=4), strict=True):
        np.testing.assert_allclose(list(r.values()), list(s.values()), **ROUNDING)


X, T, _, _ = dataset()
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


def test_a_checkpoint_with_a_negative_running_variance_is_refused_before_anything_moves(backend, tmp_path):
    path = tmp_path / "run.npz"
    train(make(backend), optimizer=optim.Adam(), checkpoint=path)
    description, arrays = archive.load(path, "fit")
    arrays["state/1.running_var"][2] = -1e-3
    archive.save(path, "fit", description, arrays)
    content, model, optimizer = path.read_bytes(), make(backend), optim.Adam()
    before = everything(model)
    with pytest.raises(ValueError, match=r"run\.npz: state/1\.running_var must be at least 0, got -0\.001"):
        train(model, optimizer=optimizer, checkpoint=path)
    assert path.read_bytes() == content
    assert everything(model) == before
    assert (optimizer.steps, optimizer.state) == (0, {})


def test_a_checkpoint_in_a_missing_folder_is_refused_before_anything_moves(backend, tmp_path):
    model, before, optimizer = make(backend), everything(make(backend)), optim.Adam()
    with pytest.raises((OSError, ValueError), match="missing"):
        train(model, optimizer=optimizer, checkpoint=tmp_path / "missing" / "run.npz")
    assert everything(model) == before
    assert optimizer.steps == 0


def test_a_folder_that_went_during_the_training_is_made_again(tmp_path):
    path, options = tmp_path / "folder" / "run.npz", {"epochs": 3}
    path.parent.mkdir()

    def remove(record, m):
        shutil.rmtree(path.parent)

    records = train(make("numpy"), checkpoint=path, callbacks=[remove], **options)
    assert train(make("numpy", Watched), checkpoint=path, **options) == records


def test_an_epoch_whose_callback_fails_is_trained_again(backend, tmp_path):
    path, model = tmp_path / "run.npz", make(backend)

    def fail(record, m):
        if record["epoch"] == 2:
            raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        train(model, checkpoint=path, callbacks=[fail])
    assert train(make(backend), epochs=1, checkpoint=path) == train(make(backend), epochs=1)
    assert train(make(backend), epochs=3, checkpoint=path) == train(make(backend), epochs=3)


def test_a_learning_rate_that_a_callback_changed_is_gone_on_with(tmp_path):
    def slower(record, model):
        optimizer.lr = optimizer.lr * 0.5

    models, records = [], []
    for parts in ((4,), (2, 4)):
        path = tmp_path / f"{len(parts)}.bnkit"
        for epochs in parts:
            model, optimizer = make("numpy"), optim.Momentum(lr=0.1)
            found = train(model, optimizer=optimizer, epochs=epochs, callbacks=[slower], checkpoint=path)
        models.append(everything(model))
        records.append(found)
    assert records[0] == records[1]
    assert models[0] == models[1]


def test_fewer_epochs_than_the_checkpoint_holds_are_refused(tmp_path):
    train(make("numpy"), epochs=3, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="epochs must be at least the 3 of the checkpoint, got 2"):
        train(make("numpy"), epochs=2, checkpoint=tmp_path / "c")


@pytest.mark.parametrize("change", ["a row in the middle", "no test set", "another test set"])
def test_other_data_are_noticed(tmp_path, change):
    data = dataset(rows=300)
    train(make("numpy"), data, epochs=1, checkpoint=tmp_path / "c")
    if change == "a row in the middle":
        data.x_train[150] += 1
    elif change == "another test set":
        data.x_test[0] += 1
    else:
        data = data[:2]
    with pytest.raises(ValueError, match="differs in data"):
        train(make("numpy"), data, epochs=2, checkpoint=tmp_path / "c")


def rewritten(path, change):
    """The checkpoint with its description and arrays changed."""
    description, arrays = archive.load(path, "fit")
    change(description, arrays)
    archive.save(path, "fit", description, arrays)


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_checkpoint_of_before_there_was_a_test_loss_is_resumed(backend, tmp_path, replicas):
    path = tmp_path / "run.npz"
    train(make(backend, replicas=replicas), epochs=1, checkpoint=path)

    def age(description, arrays):
        for record in description["records"]:
            del record["test_loss"], record["diverged"]

    rewritten(path, age)
    records = train(make(backend, replicas=replicas), epochs=2, checkpoint=path)
    assert np.isnan(records[0]["test_loss"]).all()
    assert not np.any(records[0]["diverged"])
    expected = train(make(backend, replicas=replicas), epochs=2)
    assert records[1] == expected[1]
    assert [list(r) for r in records] == [list(r) for r in expected]


def test_a_checkpoint_whose_memory_does_not_fit_is_refused_before_anything_moves(backend, tmp_path):
    path = tmp_path / "run.npz"
    train(make(backend), epochs=1, checkpoint=path)
    rewritten(path, lambda description, arrays: arrays.update({"optimizer/0.weight/m": np.zeros((2, 2))}))
    model, optimizer = make(backend), optim.Adam(lr=0.01)
    before = everything(model)
    with pytest.raises(ValueError, match=r"run\.npz: optimizer: 0\.weight/m must be float64 of shape \(5, 6\)"):
        train(model, optimizer=optimizer, checkpoint=path)
    assert everything(model) == before
    assert optimizer.steps == 0
