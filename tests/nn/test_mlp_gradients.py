"""The gradients of an MLP against central differences."""

import numpy as np
import pytest
from small_mlp import OPTIONS, ROUNDING, ROWS, batch, cross_entropy, make, stir

from bnkit.testing.gradients import numerical_gradient

# Central differences: H²/6 = 2e-11 of a third derivative, which batch norm over a few rows makes as large as 1e3, and
# rounding of the loss, 1e-16 / H = 1e-11.
H = 1e-5
GRADIENT = {"rtol": 0, "atol": 5e-8}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_meet_central_differences(backend, name):
    # Each call of f moves the running statistics, of which a training loss is independent.
    model, (x, t) = stir(make(backend, **OPTIONS[name], init=0.5)), batch()
    loss, grads = model.loss_and_grads(x, t, step=3)
    assert list(grads) == list(model.params)
    assert float(model.loss_and_grads(x, t, step=3)[0]) == float(loss)
    for key, p in model.params.items():
        found = numerical_gradient(lambda: model.loss_and_grads(x, t, step=3)[0], p, H)
        np.testing.assert_allclose(backend.to_numpy(grads[key]), found, err_msg=key, **GRADIENT)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_gradients_of_replicas_meet_central_differences(backend, lead):
    options = {"activation": "tanh", "weight_decay": 0.1, "dropout": 0.3, "bias": False}
    model = stir(make(backend, (5, 4, 3), replicas=2, seed=[0, 1], init=[0.5, 1.0], **options))
    x, t = batch(lead=lead)
    _, grads = model.loss_and_grads(x, t, step=1)
    for key, p in model.params.items():
        found = numerical_gradient(lambda: backend.xp.sum(model.loss_and_grads(x, t, step=1)[0]), p, H)
        np.testing.assert_allclose(backend.to_numpy(grads[key]), found, err_msg=key, **GRADIENT)


def test_weights_of_several_classes_are_soft_labels(backend):
    model, (x, _) = stir(make(backend, batch_norm={"track": False}, init=0.5)), batch()
    soft = np.random.default_rng(3).uniform(0.1, 1, size=(ROWS, 3))  # rows need not sum to 1
    model_loss, grads = model.loss_and_grads(x, soft)
    np.testing.assert_allclose(float(model_loss), cross_entropy(backend.to_numpy(model.predict(x)), soft), **ROUNDING)
    p = model.params["6.weight"]
    found = numerical_gradient(lambda: model.loss_and_grads(x, soft)[0], p, H)
    np.testing.assert_allclose(backend.to_numpy(grads["6.weight"]), found, **GRADIENT)
