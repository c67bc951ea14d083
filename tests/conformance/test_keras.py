"""bnkit against Keras' BatchNormalization, over the cases by which Keras tests it.

Keras' momentum is the decay, its running variance is biased, its eps is 1e-3, and its axis of channels is the last.
"""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bnkit

Host = np.ndarray[Any, Any]
# Keras works in float32, over at most 3,200 elements; so does its gradient, through every operation by itself
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
STATISTICS = {"running_mean": "moving_mean", "running_var": "moving_variance"}
COVERED = {
    "test_bn_basics": "test_the_layers_agree_with_and_without_parameters; bnkit has no regularizers",
    "test_correctness": "test_three_layers_in_a_row_move_the_statistics_alike",
    "test_input_fully_masked": "test_a_batch_that_is_masked_wholly_gives_beta",
    "test_bachnorm_ignore_masked_values": "test_masked_values_do_not_count",
    "test_trainable_behavior": "test_inference_in_a_training_loop_is_what_keras_makes_of_trainable_false",
    "test_large_value_within_autocast_scope": "test_a_variance_that_float16_cannot_hold_is_kept_beside_float16_data",
    "test_masked_broadcast_normalization": "test_a_mask_is_broadcast",
    "test_renorm_basics": "test_batch_renormalization",
    "test_renorm_invalid_clipping_keys": "test_batch_renormalization",
    "test_renorm_stddev_initializer": "bnkit keeps the variance alone, and no second pair of statistics for renorm",
    "test_renorm_inference": "test_batch_renormalization",
    "test_renorm_correctness": "test_batch_renormalization",
    "test_serialization": "layers are copied and pickled whole, which tests/nn/test_batch_norm_layer.py tests",
}


def random(*shape: int, seed: int = 0, mean: float = 5.0, std: float = 10.0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(mean, std, shape).astype(np.float32)


def layers(
    keras: Any, shape: tuple[int, ...], *, axis: int = -1, affine: bool = True, **options: Any
) -> tuple[Any, Any]:
    """Keras' layer for this shape, its parameters drawn, and bnkit's with the same parameters and options."""
    features = shape[axis]
    theirs = keras.layers.BatchNormalization(axis=axis, center=affine, scale=affine, **options)
    theirs.build(shape)
    ours = bnkit.BatchNorm(
        features, axis=axis, decay=theirs.momentum, eps=theirs.epsilon, correction=0, affine=affine, backend="numpy"
    )
    for seed, name in enumerate(ours.params):
        ours.params[name][...] = random(features, seed=seed, mean=0.5, std=1)
        getattr(theirs, name).assign(ours.params[name])
    for name, kind in STATISTICS.items():
        ours.state[name][...] = numpy(getattr(theirs, kind))
    return theirs, ours


def numpy(a: Any) -> Host:
    return a.value.detach().numpy().copy() if hasattr(a, "value") else a.detach().numpy()


def agree(
    theirs: Any,
    ours: Any,
    x: Host,
    *,
    train: bool,
    mask: Host | None = None,
    masked: Host | None = None,
    statistics: tuple[str, ...] = ("running_mean", "running_var"),
) -> Host:
    """y of both, after the gradients and the statistics were compared; `masked` is the mask as bnkit takes it."""
    import torch

    leaf = torch.tensor(x, requires_grad=True)
    options = {} if mask is None else {"mask": torch.tensor(mask)}
    expected = theirs(leaf, training=train, **options)
    y, cache = ours.forward(x, train=train, mask=masked)
    np.testing.assert_allclose(y, numpy(expected), **TOLERANCE)
    dy = random(*x.shape, seed=9, mean=0, std=1)
    expected.backward(torch.tensor(dy))
    dx, grads = ours.backward(dy, cache)
    np.testing.assert_allclose(dx, leaf.grad.numpy(), **TOLERANCE)
    for name, grad in grads.items():
        theirs_grad = getattr(theirs, name).value.grad
        # sums, whose rounding walks
        np.testing.assert_allclose(grad, theirs_grad.numpy(), rtol=2e-5, atol=2e-5 * np.sqrt(x.size / grad.size))
        theirs_grad.zero_()
    for name in statistics:
        np.testing.assert_allclose(ours.state[name], numpy(getattr(theirs, STATISTICS[name])), **TOLERANCE)
    return y


def test_no_case_of_keras_is_left_out(keras: Any) -> None:
    path = Path(keras.__file__).parent / "src/layers/normalization/batch_normalization_test.py"
    names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    assert {name for name in names if name.startswith("test_")} == set(COVERED)
    for where in COVERED.values():
        name = where.split(";")[0]
        assert not name.startswith("test_") or name in globals(), name


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 4, 3)], ids=str)
def test_the_layers_agree_with_and_without_parameters(keras: Any, shape: tuple[int, ...], affine: bool) -> None:
    theirs, ours = layers(keras, shape, affine=affine)
    for train in (True, False):
        agree(theirs, ours, random(*shape), train=train)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 3, 3, 2)], ids=str)
@pytest.mark.parametrize("mean", ["zeros", "ones"])
@pytest.mark.parametrize("var", ["zeros", "ones"])
def test_three_layers_in_a_row_move_the_statistics_alike(
    keras: Any, axis: int, shape: tuple[int, ...], mean: str, var: str
) -> None:
    options = {"moving_mean_initializer": mean, "moving_variance_initializer": var}
    theirs, ours = layers(keras, shape, axis=axis, momentum=0, **options)
    x = random(*shape)
    agree(theirs, ours, x, train=False)
    for seed in range(3):
        agree(theirs, ours, random(*shape, seed=seed), train=True)
    trained = agree(theirs, ours, x, train=True)
    np.testing.assert_allclose(agree(theirs, ours, x, train=False), trained, **TOLERANCE)


def test_a_batch_that_is_masked_wholly_gives_beta(keras: Any) -> None:
    theirs, ours = layers(keras, (4, 5))
    x, mask = np.zeros((4, 5), np.float32), np.zeros(4, bool)
    y, _ = ours.forward(x, train=True, mask=mask)
    np.testing.assert_allclose(y, numpy(theirs(x, mask=mask, training=True)), rtol=1e-6)  # float32, rounded twice
    np.testing.assert_array_equal(y, np.broadcast_to(ours.params["beta"], y.shape))
    # a choice: Keras moves its statistics towards 0 for want of a batch, here they stay
    np.testing.assert_allclose(numpy(theirs.moving_variance), 0.99, rtol=1e-6)
    np.testing.assert_array_equal(ours.state["running_var"], 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1])
def test_masked_values_do_not_count(keras: Any, value: float) -> None:
    x = np.array([[[1, 5], [2, 5], [value, value], [value, value]]] * 10, np.float32)
    mask = (x != value).any(axis=-1)
    np.testing.assert_array_equal(mask, numpy(keras.layers.Masking(mask_value=value).compute_mask(x)))
    theirs, ours = layers(keras, x.shape, momentum=0.0)
    # of the channel that is 5 everywhere the variance is 0, so that masked elements reach (5 - value) / sqrt(eps);
    # Keras' mean is off by 1e-7 / count of it, by which it divides
    y, _ = ours.forward(x, train=True, mask=mask[..., None])
    expected = theirs(x, mask=mask, training=True)
    np.testing.assert_allclose(y, numpy(expected), rtol=1e-4, atol=1e-4)
    for (name, kind), want in zip(STATISTICS.items(), ([1.5, 5], [0.25, 0]), strict=True):
        np.testing.assert_allclose(ours.state[name], want)
        # float32, and Keras' count is off by 1e-7
        np.testing.assert_allclose(numpy(getattr(theirs, kind)), want, rtol=1e-6, atol=1e-6)


def test_gradients_through_a_mask_agree(keras: Any) -> None:
    theirs, ours = layers(keras, (6, 5, 3))
    mask = np.random.default_rng(0).random((6, 5)) < 0.6
    agree(theirs, ours, random(6, 5, 3), train=True, mask=mask, masked=mask[..., None])


def test_inference_in_a_training_loop_is_what_keras_makes_of_trainable_false(keras: Any) -> None:
    theirs, ours = layers(keras, (200, 4, 4, 3), momentum=0.8, epsilon=1e-7)
    x = random(200, 4, 4, 3)
    theirs.trainable = False
    ours.freeze()
    y, _ = ours.forward(x, train=True)
    np.testing.assert_allclose(y, numpy(theirs(x, training=True)), **TOLERANCE)
    theirs.trainable = True
    ours.unfreeze()
    for _ in range(10):
        y, _ = ours.forward(x, train=True)
        np.testing.assert_allclose(y, numpy(theirs(x, training=True)), **TOLERANCE)
    np.testing.assert_allclose(ours.state["running_var"], numpy(theirs.moving_variance), **TOLERANCE)


def test_a_variance_that_float16_cannot_hold_is_kept_beside_float16_data(keras: Any) -> None:
    theirs = keras.layers.BatchNormalization(dtype="mixed_float16")
    theirs.build((1, 4, 4, 3))
    theirs.moving_variance.assign(np.full(3, 70000, np.float32))
    ours = bnkit.BatchNorm(3, axis=-1, decay=0.99, eps=1e-3, correction=0, dtype="float16", backend="numpy")
    ours.state["running_var"][...] = 70000
    x = random(2, 4, 4, 3, std=300).astype(np.float16)
    for train in (False, True):
        y, _ = ours.forward(x, train=train)
        expected = theirs(x, training=train)
        assert y.dtype == numpy(expected).dtype == np.float16
        np.testing.assert_allclose(y.astype(float), numpy(expected).astype(float), rtol=2**-10, atol=2**-10)  # one ulp
        np.testing.assert_allclose(ours.state["running_var"], numpy(theirs.moving_variance), rtol=1e-5)
    assert ours.state["running_var"].min() > 65504  # the largest that float16 has


def test_a_mask_is_broadcast(keras: Any) -> None:
    theirs, ours = layers(keras, (1, 2, 3, 4), momentum=0.0)
    x, mask = random(1, 2, 3, 4), np.array([True, False]).reshape(1, 2, 1)
    agree(theirs, ours, x, train=True, mask=mask, masked=mask[..., None])
    ones = np.ones_like(x)
    y, _ = ours.forward(ones, train=True, mask=mask[..., None] | True)
    np.testing.assert_array_equal(y, np.broadcast_to(ours.params["beta"], y.shape))
    np.testing.assert_array_equal(ours.state["running_var"], 0)


@pytest.mark.parametrize("limits", [(np.inf, np.inf), (3.0, 5.0), (1.1, 0.1)], ids=str)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4, 3)], ids=str)
def test_batch_renormalization(keras: Any, shape: tuple[int, ...], limits: tuple[float, float]) -> None:
    r_max, d_max = limits
    clipping = {"rmax": r_max, "rmin": 1 / r_max, "dmax": d_max} if np.isfinite(r_max) else None
    # one momentum for both of Keras' pairs of statistics, for bnkit has one pair
    theirs, ours = layers(keras, shape, momentum=0.9, renorm=True, renorm_clipping=clipping, renorm_momentum=0.9)
    ours.renorm = limits
    mean, var = random(3, mean=0, std=1), random(3, seed=1, mean=0, std=0.5) ** 2 + np.float32(0.5)
    ours.state["running_mean"][...], ours.state["running_var"][...] = mean, var
    for variable in (theirs.moving_mean, theirs.renorm_mean):
        variable.assign(mean)
    theirs.moving_variance.assign(var)
    for variable in (theirs.moving_stddev, theirs.renorm_stddev):
        variable.assign(np.sqrt(var + theirs.epsilon))
    agree(theirs, ours, random(*shape, seed=1), train=False)
    x = random(*shape, mean=1, std=2)
    # a choice: Keras averages standard deviations, here variances are averaged, as without renorm
    agree(theirs, ours, x, train=True, statistics=("running_mean",))
    batch_var = x.astype(np.float64).var(axis=tuple(range(x.ndim - 1)))
    np.testing.assert_allclose(ours.state["running_var"], 0.9 * var + 0.1 * batch_var, rtol=1e-6)


def test_synchronized_is_keras_on_tensorflow_only(keras: Any) -> None:
    with pytest.raises(ValueError, match="only supported with the TensorFlow backend"):
        keras.layers.BatchNormalization(
            synchronized=True
        )  # `reduce` is tested in tests/norm/test_batch_norm_options.py
