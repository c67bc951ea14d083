"""The tutorial's BatchNormalization against its formulas."""

import numpy as np
import pytest
import textbook_tutorial as textbook
from numpy.testing import assert_allclose, assert_array_equal
from tutorial_pairs import CLOSE

from bnkit import tutorial

SHAPES = [(7, 5), (1, 3), (2, 1), (4, 3, 5, 2), (13, 1, 1, 1)]


@pytest.fixture
def random():
    return np.random.default_rng(20)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization_follows_the_formulas_over_steps(random, shape):
    features = np.prod(shape[1:])
    gamma, beta = random.normal(1, 0.5, features), random.normal(0, 0.5, features)
    ours, expected = (m.BatchNormalization(gamma.copy(), beta.copy(), momentum=0.8) for m in (tutorial, textbook))
    for step in range(4):
        x, dout = random.normal(step, 1 + step, shape), random.normal(0, 1, shape)
        assert_allclose(ours.forward(x), expected.forward(x), **CLOSE)
        assert_allclose(ours.backward(dout), expected.backward(dout), **CLOSE)
        for name in ("running_mean", "running_var", "dgamma", "dbeta"):
            assert getattr(ours, name).shape == (features,)
            assert_allclose(getattr(ours, name), getattr(expected, name), err_msg=name, **CLOSE)
        assert_allclose(ours.forward(x, train_flg=False), expected.forward(x, train_flg=False), **CLOSE)
        assert ours.input_shape == shape


def test_batch_normalization_starts_from_the_running_arrays_it_is_given(random):
    given = random.normal(0, 1, 3), random.uniform(1, 2, 3)
    layers = [m.BatchNormalization(np.ones(3), np.zeros(3), 0.9, *map(np.copy, given)) for m in (tutorial, textbook)]
    x = random.normal(0, 1, (5, 3))
    for train_flg in (False, True, False):
        assert_allclose(*(layer.forward(x, train_flg) for layer in layers), **CLOSE)
    assert_allclose(layers[0].running_var, layers[1].running_var, **CLOSE)


@pytest.mark.parametrize("train_flg", [True, False])
def test_running_arrays_begin_as_zeros_at_the_first_forward(random, train_flg):
    layer = tutorial.BatchNormalization(np.ones(3), np.zeros(3), momentum=1.0)
    assert layer.running_mean is None
    assert layer.running_var is None
    layer.forward(random.normal(5, 1, (4, 3)), train_flg)
    for array in (layer.running_mean, layer.running_var):
        assert array.dtype == np.float64
        assert_array_equal(array, np.zeros(3))


def test_running_arrays_are_new_after_each_training_forward(random):
    mean, var = np.zeros(3), np.ones(3)
    layer = tutorial.BatchNormalization(np.ones(3), np.zeros(3), 0.9, mean, var)
    layer.forward(random.normal(5, 1, (4, 3)))
    assert_array_equal(mean, np.zeros(3))
    assert_array_equal(var, np.ones(3))
    assert layer.running_mean is not mean
    assert layer.running_var is not var


def test_backward_belongs_to_the_last_training_forward_whatever_happens_to_its_arrays(random):
    gamma, x, dout = random.normal(1, 0.5, 3), random.normal(0, 1, (5, 3)), random.normal(0, 1, (5, 3))
    results = []
    for module in (tutorial, textbook):
        layer = module.BatchNormalization(gamma.copy(), np.zeros(3))
        mine = x.copy()
        layer.forward(mine)
        mine[:] = 7
        layer.gamma *= 2
        layer.forward(x[:2], train_flg=False)
        results.append((layer.backward(dout), layer.dgamma, layer.dbeta))
    for ours, expected in zip(*results, strict=True):
        assert_allclose(ours, expected, **CLOSE)


def test_batch_normalization_leaves_its_arguments_as_they_were(random):
    x, dout, gamma, beta = random.normal(0, 1, (5, 3)), random.normal(0, 1, (5, 3)), np.full(3, 2.0), np.full(3, 3.0)
    arrays = x, dout, gamma, beta
    copies = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    layer = tutorial.BatchNormalization(gamma, beta)
    y, dx = layer.forward(x), layer.backward(dout)
    y[:], dx[:] = 0, 0
    for array, before in zip(arrays, copies, strict=True):
        assert_array_equal(array, before)


def test_batch_normalization_takes_numbers_for_gamma_and_beta_and_images_out_of_order(random):
    layers = [module.BatchNormalization(2, 0.5) for module in (tutorial, textbook)]
    x, dout = random.normal(0, 1, (2, 3, 2, 5)).T, random.normal(0, 1, (5, 12))
    assert_allclose(*(layer.forward(x) for layer in layers), **CLOSE)
    assert_allclose(layers[0].backward(dout), layers[1].backward(dout).reshape(x.shape), **CLOSE)


@pytest.mark.parametrize("parameters", [np.float64, np.float32])
@pytest.mark.parametrize("images", [np.float64, np.float32, np.float16, np.uint8])
def test_dtypes_are_those_of_the_formulas(random, images, parameters):
    x = random.integers(0, 9, (6, 4)).astype(images)
    dout = np.ones((6, 4), np.float32)
    layers = [m.BatchNormalization(np.ones(4, parameters), np.zeros(4, parameters)) for m in (tutorial, textbook)]
    for train_flg in (True, False):
        ours, expected = (layer.forward(x, train_flg) for layer in layers)
        assert ours.dtype == expected.dtype
        # The formulas round every step to float16, eps = 1e-3; bnkit only the result.
        assert_allclose(ours, expected, rtol=1e-2, atol=1e-2)
    assert layers[0].backward(dout).dtype == layers[1].backward(dout).dtype
    assert layers[0].running_mean.dtype == layers[1].running_mean.dtype


def test_batch_normalization_overflows_without_a_warning(random):
    layer = tutorial.BatchNormalization(np.full(3, 1e308), np.full(3, 1e308))
    assert not np.isfinite(layer.forward(random.normal(0, 1, (50, 3)))).all()
    assert not np.isfinite(layer.backward(random.normal(0, 9, (50, 3)))).all()
    layer.forward(random.normal(0, 1e200, (50, 3)))


def test_backward_without_a_training_forward_is_refused():
    layer = tutorial.BatchNormalization(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"backward must come after forward\(x, train_flg=True\)"):
        layer.backward(np.ones((2, 3)))
    layer.forward(np.ones((2, 3)), train_flg=False)
    with pytest.raises(ValueError, match=r"backward must come after forward\(x, train_flg=True\)"):
        layer.backward(np.ones((2, 3)))


def test_backward_refuses_another_shape():
    layer = tutorial.BatchNormalization(np.ones(6), np.zeros(6))
    layer.forward(np.ones((2, 1, 2, 3)))
    with pytest.raises(ValueError, match=r"dout must be \(2, 1, 2, 3\).* got \(3, 6\)"):
        layer.backward(np.ones((3, 6)))


@pytest.mark.parametrize(
    ("arguments", "x", "error", "message"),
    [
        ((np.ones(2), np.zeros(3)), np.ones((4, 3)), ValueError, r"gamma must be \(3,\).* got \(2,\)"),
        ((np.ones(3), np.zeros((3, 1))), np.ones((4, 3)), ValueError, r"beta must be \(3,\).* got \(3, 1\)"),
        ((np.ones(3), np.zeros(3)), np.ones((4, 3, 5, 5)), ValueError, r"gamma must be \(75,\).* got \(3,\)"),
        ((np.ones(3), np.zeros(3)), np.ones(3), ValueError, r"x must be \(N, D\) or \(N, C, H, W\), got \(3,\)"),
        ((np.ones(3), np.zeros(3)), np.ones((4, 3), complex), TypeError, "x must hold real numbers, got complex128"),
        ((None, np.zeros(3)), np.ones((4, 3)), TypeError, "gamma must hold real numbers, got object"),
        ((1, 0, 0.9, np.ones(2), np.ones(2)), np.ones((4, 3)), ValueError, r"running_mean must be \(3,\)"),
        ((1, 0, 0.9, np.ones(3), np.ones(2)), np.ones((4, 3)), ValueError, r"running_var must be \(3,\)"),
    ],
)
def test_batch_normalization_refuses_bad_arrays(arguments, x, error, message):
    layer = tutorial.BatchNormalization(*arguments)
    with pytest.raises(error, match=message):
        layer.forward(x)


def test_running_arrays_come_both_or_neither():
    with pytest.raises(ValueError, match=r"running_mean and running_var .* got None for running_var"):
        tutorial.BatchNormalization(np.ones(3), np.zeros(3), running_mean=np.zeros(3))
