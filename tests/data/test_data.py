"""The datasets that need no file, and what `load` refuses."""

import hashlib
import sys

import numpy as np
import pytest

from bnkit import data

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_a_dataset_is_in_range_and_the_same_at_each_load(name: str) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    first, second = data.load(name), data.load(name)
    assert first.classes == 10
    for x, t in ((first.x_train, first.t_train), (first.x_test, first.t_test)):
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        assert x.shape == (len(t), 64)
        assert t.dtype == np.int64
        assert 0 <= x.min() < x.max() <= 1
        assert np.unique(t).tolist() == list(range(10))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_digits_are_scikit_learns_and_no_row_is_in_both_parts() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    x_train, t_train, x_test, t_test = data.load("digits")
    assert x_train.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    x = np.concatenate([x_train, x_test])
    labelled = np.column_stack([x * 16, np.concatenate([t_train, t_test])]).astype(int)
    expected = np.column_stack([bunch.data, bunch.target]).astype(int)
    # No two of the 1,797 rows are equal, so equal sorted rows mean that each is there once, in one part.
    assert len(np.unique(expected, axis=0)) == 1797
    assert sorted(labelled.tolist()) == sorted(expected.tolist())


def test_the_split_of_digits_is_the_documented_one() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    order = np.random.default_rng(0).permutation(1797)
    dataset = data.load("digits")
    np.testing.assert_array_equal(dataset.x_train, bunch.data[order[:1437]].astype(np.float32) / 16)
    np.testing.assert_array_equal(dataset.t_test, bunch.target[order[1437:]])
    assert dataset.t_train[:10].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]


def test_synthetic_has_the_same_bits_on_every_machine() -> None:
    dataset = data.load("synthetic")
    assert dataset.x_train.shape == (1000, 64)
    assert dataset.x_test.shape == (500, 64)
    digest = hashlib.sha256(b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in dataset))
    assert digest.hexdigest() == "e44b20d0be96ec2381e5ef6336360ba9ba5f41f0f73bdb0d0dbfc372e1c56f0a"


def test_synthetic_is_learnable_by_a_linear_model_but_not_wholly() -> None:
    x_train, t_train, x_test, t_test = (array.astype(float) for array in data.load("synthetic"))
    onehot = np.eye(10)[t_train.astype(int)]
    weights = np.linalg.lstsq(np.column_stack([x_train, np.ones(1000)]), onehot, rcond=None)[0]
    accuracy = np.mean(np.argmax(np.column_stack([x_test, np.ones(500)]) @ weights, axis=1) == t_test)
    assert 0.75 < accuracy < 0.95  # 0.1 is chance


@pytest.mark.parametrize(("name", "package"), [("mnist", "pooch"), ("digits", "sklearn.datasets")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package} .*in a clone .*, run pip install '\.\[demo\]'"):
        data.load(name)


@pytest.mark.parametrize("name", ["cifar", "MNIST", ""])
def test_an_unknown_name_is_refused_with_the_legal_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"name must be one of 'mnist', 'digits', 'synthetic', got '{name}'"):
        data.load(name)


def test_a_dataset_shows_shapes_and_no_data() -> None:
    expected = "Dataset(x_train=(1000, 64), t_train=(1000,), x_test=(500, 64), t_test=(500,))"
    assert repr(data.load("synthetic")) == expected
