"""What an MLP takes and gives back: the dtypes and the backend of data, labels, parameters and gradients."""

import numpy as np
import pytest
from small_mlp import OPTIONS, ROUNDING, batch, everything, host, make

from bnkit import backend_of


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_params_lie_on_the_backend_in_the_dtype(backend, dtype):
    model = make(backend, dtype=dtype)
    assert model.backend is backend
    for name, p in model.params.items():
        assert backend_of(p) is backend
        assert str(backend.to_numpy(p).dtype) == dtype, name


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_of_any_integer_dtype_equal_one_hot_weights(backend, dtype, replicas):
    model, (x, t) = make(backend, replicas=replicas, batch_norm={"track": False}), batch()
    for form in (t.astype(dtype), np.eye(3)[t], np.eye(3, dtype="float32")[t]):
        loss, grads = model.loss_and_grads(x, form)
        expected, expected_grads = model.loss_and_grads(x, t)
        np.testing.assert_array_equal(backend.to_numpy(loss), backend.to_numpy(expected))
        for key, grad in host(backend, expected_grads).items():
            np.testing.assert_array_equal(backend.to_numpy(grads[key]), grad)
        np.testing.assert_array_equal(backend.to_numpy(model.accuracy(x, form)), backend.to_numpy(model.accuracy(x, t)))


@pytest.mark.parametrize("replicas", [None, 2])
def test_host_arrays_go_in_and_arrays_of_the_backend_come_out(backend, replicas):
    model, (x, t) = make(backend, replicas=replicas), batch()
    loss, grads = model.loss_and_grads(x, t)
    for a in (model.predict(x), model.loss(x, t), model.accuracy(x, t), loss, *grads.values()):
        if backend.name != "numpy":
            assert backend_of(a) is backend
        assert type(backend.to_numpy(a)) is np.ndarray or np.isscalar(a)


def test_arrays_of_the_backend_give_what_host_arrays_give(backend):
    model, (x, t) = make(backend, batch_norm={"track": False}), batch()
    for target in (t, np.eye(3)[t]):
        moved = backend.asarray(x), backend.asarray(target)
        for method in ("loss", "accuracy"):
            assert float(getattr(model, method)(*moved)) == float(getattr(model, method)(x, target))
        assert float(model.loss_and_grads(*moved)[0]) == float(model.loss_and_grads(x, target)[0])


def test_floats_of_another_width_take_the_models_dtype(backend):
    x, t = batch()
    for dtype in ("float32", "float64"):
        model = make(backend, dtype=dtype)
        for x_dtype in ("float32", "float64"):
            assert str(backend.to_numpy(model.predict(x.astype(x_dtype))).dtype) == dtype
            grads = model.loss_and_grads(x.astype(x_dtype), t)[1]
            assert {str(g.dtype) for g in host(backend, grads).values()} == {dtype}


def test_data_are_left_untouched(backend):
    x, t = batch()
    mine = x.copy(), t.copy()
    for a in mine:
        a.flags.writeable = False
    model = make(backend, dropout=0.3)
    model.loss_and_grads(*mine)
    model.loss(*mine)
    np.testing.assert_array_equal(mine[0], x)
    np.testing.assert_array_equal(mine[1], t)


@pytest.mark.parametrize("name", ["default", "all"])
def test_one_seed_is_one_network_on_every_backend(backend, name):
    ours, numpys = (make(b, seed=11, **OPTIONS[name]) for b in (backend, "numpy"))
    assert everything(ours) == everything(numpys)
    for step in range(2):
        x, t = batch(seed=step)
        loss, grads = ours.loss_and_grads(x, t, step=step)
        expected, expected_grads = numpys.loss_and_grads(x, t, step=step)
        np.testing.assert_allclose(float(loss), float(expected), **ROUNDING)
        for key, g in expected_grads.items():
            np.testing.assert_allclose(backend.to_numpy(grads[key]), g, **ROUNDING)
