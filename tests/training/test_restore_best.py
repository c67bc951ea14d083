"""EarlyStopping(restore_best=True): the model that `fit` leaves is that of the best epoch."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from places import HELPERS
from small_mlp import everything
from small_training import dataset, make, train

from bnkit import EarlyStopping, optim


def stopping(**options):
    return EarlyStopping("test_loss", **{"patience": 3, "restore_best": True, **options})


def run(backend, *, callbacks=(), model=None, epochs=12, **options):
    model = make(backend) if model is None else model
    records = train(model, optimizer=optim.Adam(lr=0.3), epochs=epochs, callbacks=callbacks, **options)
    return model, records


def best_epoch(records, replica=None):
    losses = [r["test_loss"] if replica is None else r["test_loss"][replica] for r in records]
    return int(np.argmin(losses)) + 1


def test_the_model_is_that_of_the_best_epoch(backend):
    stop = stopping()
    model, records = run(backend, callbacks=[stop])
    best = best_epoch(records)
    assert 1 <= best < len(records) == best + 3  # stopped, and past its best
    expected, _ = run(backend, epochs=best)
    assert everything(model) == everything(expected)
    assert stop.best_epoch == best
    assert stop.best == records[best - 1]["test_loss"]


def test_without_restore_best_the_model_is_that_of_the_last_epoch(backend):
    model, records = run(backend, callbacks=[stopping(restore_best=False)])
    expected, _ = run(backend, epochs=len(records))
    assert everything(model) == everything(expected)


def test_the_best_is_restored_where_the_epochs_run_out_or_another_callback_ends(backend):
    _, records = run(backend, callbacks=[stopping()])
    best = best_epoch(records)
    expected, _ = run(backend, epochs=best)
    model, _ = run(backend, callbacks=[stopping(patience=9)], epochs=best + 2)
    assert everything(model) == everything(expected)
    model, _ = run(backend, callbacks=[lambda record, _: record["epoch"] == best + 1, stopping(patience=9)])
    assert everything(model) == everything(expected)


def test_each_replica_gets_its_own_best(backend):
    options = {"replicas": 2, "seed": [0, 1], "init": [0.05, 2.0]}
    stop = stopping(patience=4)
    model, records = run(backend, callbacks=[stop], model=make(backend, **options))
    bests = [best_epoch(records, r) for r in (0, 1)]
    assert bests[0] != bests[1]
    assert stop.best_epoch.tolist() == bests
    for r, best in enumerate(bests):
        expected, _ = run(backend, epochs=best, model=make(backend, **options))
        for name, array in model.arrays().items():
            if not name.endswith("count"):
                np.testing.assert_array_equal(array[r], expected.arrays()[name][r])


def test_a_diverged_training_ends_with_its_best_model(backend):
    def hasten(record, model):
        optimizer.lr = 1e30 if record["epoch"] == 2 else 0.01

    optimizer, model = optim.SGD(), make(backend, batch_norm=False, dtype="float32")
    with pytest.warns(RuntimeWarning, match="epoch 3"):
        records = train(model, optimizer=optimizer, epochs=9, callbacks=[hasten, stopping()])
    assert len(records) == 5
    assert float(model.loss(*dataset()[2:])) == min(records[0]["test_loss"], records[1]["test_loss"])


@pytest.mark.parametrize("options", [{}, {"replicas": 2, "seed": [0, 1], "init": [0.05, 2.0]}])
@pytest.mark.parametrize("epochs", [1, 2, 4, 5, 6])
def test_a_resumed_training_restores_the_best_of_all_its_epochs(backend, tmp_path, options, epochs):
    path = tmp_path / "run.npz"
    whole, expected = run(backend, callbacks=[stopping()], model=make(backend, **options))
    run(backend, callbacks=[stopping()], model=make(backend, **options), epochs=epochs, checkpoint=path)
    model, records = run(backend, callbacks=[stopping()], model=make(backend, **options), checkpoint=path)
    assert records == expected
    assert everything(model) == everything(whole)
    model, records = run(backend, callbacks=[stopping()], model=make(backend, **options), checkpoint=path)
    assert records == expected  # it had stopped, and restores the best again
    assert everything(model) == everything(whole)


def test_a_checkpoint_without_the_best_model_is_refused(backend, tmp_path):
    path = tmp_path / "run.npz"
    _, records = run(backend, callbacks=[stopping()])
    best = best_epoch(records)
    run(backend, epochs=best + 1, checkpoint=path)
    model = make(backend)
    before = everything(model)
    with pytest.raises(ValueError, match=rf"checkpoint must hold the network of epoch {best}.*restore_best"):
        run(backend, callbacks=[stopping()], model=model, checkpoint=path)
    assert everything(model) == before


def test_a_checkpoint_whose_best_model_is_that_by_another_monitor_is_refused(backend, tmp_path):
    path = tmp_path / "run.npz"
    by_accuracy = EarlyStopping("train_accuracy", patience=9, restore_best=True)
    _, records = run(backend, callbacks=[by_accuracy], epochs=9, checkpoint=path)
    assert best_epoch(records) != by_accuracy.best_epoch
    with pytest.raises(ValueError, match="must hold the network of epoch"):
        run(backend, callbacks=[stopping(patience=9)], checkpoint=path)


def test_a_checkpoint_of_the_best_epoch_itself_serves(backend, tmp_path):
    path = tmp_path / "run.npz"
    whole, expected = run(backend, callbacks=[stopping()])
    run(backend, epochs=best_epoch(expected), checkpoint=path)
    model, records = run(backend, callbacks=[stopping()], checkpoint=path)
    assert records == expected
    assert everything(model) == everything(whole)


def test_one_object_serves_one_training_after_the_other(backend):
    stop = stopping()
    first, _ = run(backend, callbacks=[stop])
    untrained = make(backend, seed=5)
    before = everything(untrained)
    run(backend, callbacks=[stop], model=untrained, epochs=0)
    assert everything(untrained) == before  # not the best of the training before
    again, _ = run(backend, callbacks=[stop])
    assert everything(again) == everything(first)


CHILD = """
    import os, signal, sys
    from bnkit import EarlyStopping, optim
    from small_training import make, train

    def kill(record, model):
        if record["epoch"] == int(sys.argv[2]):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    stop = EarlyStopping("test_loss", patience=3, restore_best=True)
    train(make("numpy"), optimizer=optim.Adam(lr=0.3), epochs=12, callbacks=[stop, kill], checkpoint=sys.argv[1])
    sys.exit("nobody killed me")
"""


def test_a_killed_training_ends_with_the_best_model(tmp_path):
    path, script = tmp_path / "run.npz", tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    whole, expected = run("numpy", callbacks=[stopping()])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), *filter(None, sys.path)])}
    command = [sys.executable, str(script), str(path), str(best_epoch(expected) + 2)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert child.returncode != 0
    assert child.stderr == ""
    model, records = run("numpy", callbacks=[stopping()], checkpoint=path)
    assert records == expected
    assert everything(model) == everything(whole)


def test_a_replica_that_never_had_a_best_keeps_its_last_network(backend):
    options = {"replicas": 2, "seed": [0, 1]}

    def hide(record, model):
        record["test_loss"][1] = float("nan")

    stop = stopping(patience=9)
    model, _ = run(backend, callbacks=[hide, stop], model=make(backend, **options), epochs=6)
    expected, _ = run(backend, model=make(backend, **options), epochs=6)
    assert stop.best_epoch.tolist()[1] == 0
    assert 0 < stop.best_epoch.tolist()[0] < 6
    for name, array in model.arrays().items():
        if array.ndim:
            np.testing.assert_array_equal(array[1], expected.arrays()[name][1])


def test_a_refused_training_leaves_the_callback_as_it_was(backend, tmp_path):
    stop = stopping()
    run(backend, callbacks=[stop])
    best, arrays = stop.best_epoch, dict(stop.best_arrays)
    with pytest.raises(FileNotFoundError):
        run(backend, callbacks=[stop], checkpoint=tmp_path / "missing" / "run.npz")
    assert stop.best_epoch == best
    assert stop.best_arrays.keys() == arrays.keys()
