"""What `fit` says of a training that diverges, and what it leaves of a file."""

import warnings

import numpy as np
import pytest
from small_training import make, train

from bnkit import EarlyStopping, optim

TOO_FAST = {"batch_norm": False, "dtype": "float32"}


def diverge(backend, **options):
    """A training whose first update makes weights of about 1e30, so that the loss of the second is not finite."""
    model = make(backend, **TOO_FAST)
    with pytest.warns(RuntimeWarning) as caught:
        records = train(model, optimizer=optim.SGD(lr=1e30), **options)
    return model, records, [str(w.message) for w in caught]


def test_a_diverged_training_is_said_once_with_epoch_and_step(backend):
    _, records, said = diverge(backend)
    assert len(said) == 1
    assert "diverged in epoch 1, at step 2:" in said[0]
    assert [r["diverged"] for r in records] == [True] * 3
    assert not np.isfinite(records[0]["loss"])


def test_a_later_divergence_names_its_epoch_and_step(backend):
    def hasten(record, model):
        optimizer.lr = 1e30 if record["epoch"] == 2 else 0.01

    optimizer = optim.SGD()
    with pytest.warns(RuntimeWarning, match="in epoch 3, at step 12:"):
        records = train(make(backend, **TOO_FAST), optimizer=optimizer, epochs=4, callbacks=[hasten])
    assert [r["diverged"] for r in records] == [False, False, True, True]


def test_parameters_that_the_last_update_made_infinite_are_a_divergence(backend):
    with pytest.warns(RuntimeWarning, match="in epoch 1, at step 1:"):
        (record,) = train(make(backend, **TOO_FAST), optimizer=optim.SGD(lr=1e300), epochs=1, batch_size=23)
    assert np.isfinite(record["loss"])
    assert record["diverged"] is True
    assert np.isnan(record["test_accuracy"])


def test_diverged_replicas_are_named_each_once(backend):
    model = make(backend, replicas=3, seed=[0, 0, 0], **TOO_FAST)
    with pytest.warns(RuntimeWarning) as caught:
        records = train(model, optimizer=optim.SGD(lr=[1e30, 0.01, 1e30]))
    assert [str(w.message).partition(":")[0] for w in caught] == [
        "the training diverged in epoch 1, at step 2 (replica 0), step 2 (replica 2)"
    ]
    assert [r["diverged"] for r in records] == [[True, False, True]] * 3
    assert np.isnan(records[-1]["test_accuracy"][0])
    assert np.isfinite(records[-1]["test_accuracy"][1])


def test_a_sound_training_warns_of_nothing(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = train(make(backend))
    assert [r["diverged"] for r in records] == [False] * 3


def test_no_diverged_network_takes_the_place_of_a_good_checkpoint(backend, tmp_path):
    path = tmp_path / "run.npz"
    train(make(backend, **TOO_FAST), optimizer=optim.SGD(lr=1e30), epochs=0, checkpoint=path)
    assert not path.exists()

    def hasten(record, model):
        optimizer.lr = 1e30 if record["epoch"] == 2 else 0.01

    optimizer = optim.SGD()
    with pytest.warns(RuntimeWarning, match="in epoch 3"):
        expected = train(make(backend, **TOO_FAST), optimizer=optimizer, epochs=4, callbacks=[hasten], checkpoint=path)
    good, optimizer = make(backend, **TOO_FAST), optim.SGD()
    assert len(train(good, optimizer=optimizer, epochs=2, checkpoint=path)) == 2
    assert all(np.isfinite(a).all() for a in good.arrays().values())
    with pytest.warns(RuntimeWarning, match="in epoch 3"):  # it diverges again, as it must
        again = train(make(backend, **TOO_FAST), optimizer=optim.SGD(), epochs=4, callbacks=[hasten], checkpoint=path)
    np.testing.assert_equal(again, expected)


def test_a_checkpoint_of_replicas_is_written_while_one_is_sound(backend, tmp_path):
    path, options = tmp_path / "run.npz", {"replicas": 2, "seed": [0, 0], **TOO_FAST}
    with pytest.warns(RuntimeWarning, match="replica 1"):
        train(make(backend, **options), optimizer=optim.SGD(lr=[0.01, 1e30]), epochs=2, checkpoint=path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said when it happened
        records = train(make(backend, **options), optimizer=optim.SGD(lr=[0.01, 1e30]), checkpoint=path)
    assert [r["diverged"] for r in records] == [[False, True]] * 3


def test_a_network_of_nan_is_never_the_best(backend):
    """50 of 60 rows have label 0, which argmax says of NaN: an accuracy of 0.833 that no network learnt."""
    t = np.repeat([0, 1, 2], [50, 5, 5])
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    model = make(backend, **TOO_FAST)
    for p in model.params.values():
        p[...] = np.nan
    assert np.isnan(float(model.accuracy(x, t)))
    stopping = EarlyStopping(patience=2, restore_best=True)
    with pytest.warns(RuntimeWarning, match="diverged"):
        records = train(model, (x, t, x, t), callbacks=[stopping], epochs=9)
    assert len(records) == 2
    assert stopping.best == -np.inf
    assert stopping.best_epoch == 0


def test_values_that_the_dtype_of_the_model_cannot_hold_are_refused(backend):
    x = np.full((20, 5), 1e39)
    with pytest.raises(ValueError, match="x must hold finite numbers in float32, got 1e\\+39"):
        train(make(backend, dtype="float32"), (x, np.arange(20) % 3))
    make(backend, dtype="float32").loss_and_grads(x, np.arange(20) % 3)  # no method of the model warns
