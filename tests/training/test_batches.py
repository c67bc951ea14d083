"""Training on batches as they come, and on arrays that stay in their file."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from small_training import ROUNDING, Watched, dataset, make, train

from bnkit import optim

DATA = dataset()


def batches(size=5):
    return [(DATA.x_train[i : i + size].copy(), DATA.t_train[i : i + size]) for i in range(0, 23, size)]


class Anew:
    """Batches that are made each time, as those of a data loader."""

    def __init__(self, make_batches=batches):
        self.make_batches = make_batches

    def __iter__(self):
        return iter(self.make_batches())


@pytest.fixture
def mapped(tmp_path):
    """The training set with x in a file."""
    np.save(tmp_path / "x.npy", DATA.x_train)
    return np.load(tmp_path / "x.npy", mmap_mode="r"), DATA.t_train


def test_batches_of_an_iterable_are_trained_on_as_they_come(backend):
    model = make(backend, Watched)
    records = train(model, Anew(), batch_size=None, epochs=2)
    assert [rows for rows, _, _ in model.seen] == 2 * [list(range(i, min(i + 5, 23))) for i in range(0, 23, 5)]
    assert [step for _, step, _ in model.seen] == list(range(10))
    assert [r["step"] for r in records] == [5, 10]
    assert records[0].keys() == {"epoch", "step", "loss", "diverged"}


def test_the_loss_of_an_iterable_is_the_mean_over_its_rows(backend):
    model = make(backend, Watched)
    (record,) = train(model, batches(), batch_size=None, epochs=1)
    rows = [len(rows) for rows, _, _ in model.seen]
    losses = [float(loss) for _, _, loss in model.seen]
    np.testing.assert_allclose(record["loss"], np.average(losses, weights=rows), **ROUNDING)


def test_an_iterable_trains_replicas(backend):
    model = make(backend, replicas=2, seed=[0, 1], init=[0.5, 0.1])
    records = train(model, batches(), batch_size=None, epochs=2)
    single = make(backend, seed=1, init=0.1)
    expected = train(single, batches(), batch_size=None, epochs=2)
    np.testing.assert_allclose([r["loss"][1] for r in records], [r["loss"] for r in expected], **ROUNDING)


def test_a_test_set_stands_beside_an_iterable_or_arrays(backend):
    model = make(backend)
    (record,) = train(model, batches(), batch_size=None, epochs=1, test=(DATA.x_test, DATA.t_test))
    assert record["test_accuracy"] == pytest.approx(float(model.accuracy(DATA.x_test, DATA.t_test)))
    whole, apart = make(backend), make(backend)
    assert train(whole, DATA) == train(apart, DATA[:2], test=DATA[2:])


def test_one_pass_of_a_generator_is_one_epoch(backend):
    expected = train(make(backend), batches(), batch_size=None, epochs=1)
    assert train(make(backend), iter(batches()), batch_size=None, epochs=1) == expected


def test_a_generator_for_several_epochs_is_refused_before_it_is_read(backend):
    given = iter(batches())
    with pytest.raises(ValueError, match=r"data must be restartable for 3 epochs.*got list_iterator"):
        train(make(backend), given, batch_size=None)
    assert len(list(given)) == 5


def test_an_epoch_without_batches_is_an_error(backend):
    with pytest.raises(ValueError, match=r"data must yield a batch in every epoch, got none in epoch 1"):
        train(make(backend), Anew(list), batch_size=None)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (np.zeros((5, 5)), TypeError, r"data must yield batches \(x, t\), got ndarray as batch 2 of an epoch"),
        ((1, 2, 3), TypeError, "got 3 values as batch 2"),
        ((np.zeros((5, 4), np.float32), np.zeros(5, int)), ValueError, r"x must be \(rows, 5\), got \(5, 4\)"),
        ((np.zeros((5, 5), np.float32), np.full(5, 7)), ValueError, "t must be labels from 0 to 2"),
    ],
    ids=["no pair", "three", "width", "label"],
)
def test_a_bad_batch_is_an_error_when_it_comes(backend, batch, error, message):
    model = make(backend, Watched)
    with pytest.raises(error, match=message):
        train(model, [batches()[0], batch], batch_size=None, epochs=1)
    assert len(model.seen) == 1


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (batches(), {}, ValueError, "batch_size must be None for an iterable of batches, got 5"),
        (DATA, {"batch_size": None}, TypeError, "batch_size must be an int for data in arrays, got None"),
        (DATA, {"test": DATA[2:]}, ValueError, "test must be None for a Dataset"),
        (DATA[:2], {"test": DATA.x_test}, TypeError, r"test must be \(x, t\), got ndarray"),
        (DATA.x_train, {"batch_size": None}, TypeError, "iterable of batches, got ndarray"),
        ("batches", {"batch_size": None}, TypeError, "iterable of batches, got str"),
        (7, {"batch_size": None}, TypeError, "iterable of batches, got int"),
    ],
    ids=["batch_size", "no batch_size", "two tests", "test", "array", "text", "int"],
)
def test_a_mistake_in_data_is_refused(backend, data, options, error, message):
    with pytest.raises(error, match=message):
        train(make(backend), data, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_first_batch_that_is_not_finite_is_refused_before_anything_moves(backend, value):
    model, bad = make(backend, Watched), batches()
    bad[0][0][3, 1] = value
    with pytest.raises(ValueError, match=r"x of the first batch must hold finite numbers.*\[3, 1\]"):
        train(model, bad, batch_size=None, epochs=1)
    assert model.seen == []


def test_a_first_batch_without_rows_is_refused_by_its_shape(backend):
    with pytest.raises(ValueError, match=r"x must be \(rows, 5\), got \(\)"):
        train(make(backend), [(np.array(1.0), np.array([0]))], batch_size=None, epochs=1)


def test_an_iterable_leaves_out_its_last_batch_itself(backend):
    with pytest.raises(ValueError, match="drop_last must be False for an iterable of batches"):
        train(make(backend), batches(), batch_size=None, drop_last=True)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_killed_training_on_an_iterable_goes_on_to_the_same_bits(backend, tmp_path, epochs):
    path = tmp_path / "fit.npz"
    whole = make(backend, dropout=0.3)
    expected = train(whole, Anew(), batch_size=None)
    train(make(backend, dropout=0.3), Anew(), batch_size=None, epochs=epochs, checkpoint=path)
    again = make(backend, dropout=0.3)
    assert train(again, Anew(), batch_size=None, checkpoint=path) == expected
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_a_checkpoint_of_arrays_is_not_gone_on_from_with_batches(backend, tmp_path):
    path = tmp_path / "fit.npz"
    train(make(backend), DATA[:2], epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"must be of the same training, but differs in data and batch_size"):
        train(make(backend), Anew(), batch_size=None, checkpoint=path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_memory_map_trains_as_the_array_that_it_holds(backend, mapped, dtype):
    records = train(make(backend, dtype=dtype), mapped)
    assert records == train(make(backend, dtype=dtype), DATA[:2])


def test_a_memory_map_is_gone_on_with_from_a_checkpoint(backend, mapped, tmp_path):
    path = tmp_path / "fit.npz"
    train(make(backend), mapped, epochs=1, checkpoint=path)
    assert train(make(backend), mapped, checkpoint=path) == train(make(backend), mapped)
    with pytest.raises(ValueError, match="differs in data"):
        train(make(backend), (mapped[0][:20], mapped[1][:20]), checkpoint=path)


def test_methods_of_a_model_take_a_memory_map(backend, mapped):
    model = make(backend)
    x, t = mapped
    for method in (model.loss, model.accuracy):
        assert float(method(x, t)) == float(method(DATA.x_train, t))
    loss, _ = model.loss_and_grads(x, t)
    assert float(loss) == float(make(backend).loss_and_grads(DATA.x_train, t)[0])


def test_a_memory_map_of_a_wrong_shape_or_dtype_is_refused(backend, mapped):
    x, t = mapped
    with pytest.raises(ValueError, match=r"x must be \(rows, 5\), got \(23, 4\)"):
        train(make(backend), (x[:, :4], t))
    with pytest.raises(TypeError, match="x must be"):
        train(make(backend), (x.view(np.int32), t))


# Limits what the process may have in memory of its own to less than the file holds; what it maps of the file does not
# count, since the system may drop it at any time.
LARGE = """
    import resource, sys
    import numpy as np
    import bnkit

    path, loaded = sys.argv[1], sys.argv[2] == "loaded"
    x = np.load(path, mmap_mode="r")
    t = np.arange(len(x)) % 10
    model = bnkit.MLP((x.shape[1], 16, 10), backend="numpy", dtype="float64")  # the file's float32 has to be widened
    options = {"optimizer": bnkit.optim.SGD(lr=0.1), "epochs": 1, "batch_size": 256, "checkpoint": path + ".npz"}
    bnkit.fit(model, (x[:300], t[:300]), **options | {"checkpoint": None})  # threads and buffers are there from now on
    used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + x.nbytes // 2,) * 2)
    records = bnkit.fit(model, (np.array(x) if loaded else x, t), **options)
    print(records[0]["step"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts anonymous memory on Linux alone")
@pytest.mark.parametrize("how", ["mapped", "loaded"])
def test_a_memory_map_larger_than_the_memory_is_trained_on(tmp_path, how):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(60_000, 1024))
    x[::7] = np.random.default_rng(0).normal(size=1024)
    del x
    command = [sys.executable, "-c", textwrap.dedent(LARGE), str(tmp_path / "x.npy"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if how == "mapped":
        assert (done.returncode, done.stdout.strip()) == (0, "235"), done.stderr
    else:
        assert "MemoryError" in done.stderr, "the limit is one that the whole array does not fit in"


def test_an_optimizer_counts_the_updates_of_an_iterable(backend):
    optimizer = optim.Adam(lr=0.01)
    train(make(backend), batches(), optimizer, batch_size=None, epochs=2)
    assert optimizer.steps == 10
