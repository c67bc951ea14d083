"""What an optimizer refuses, before anything moves."""

import numpy as np
import pytest
from small_params import ALL, bits, host_arrays, on

from bnkit import get_backend, optim


def _missing(params, grads, backend):
    del grads["0.bias"]


def _extra(params, grads, backend):
    grads["1.gamma"] = grads["0.bias"]


def _shape(params, grads, backend):
    grads["0.bias"] = backend.asarray(np.ones((1, 4)))


def _transposed(params, grads, backend):
    grads["0.weight"] = backend.asarray(np.ones((4, 3)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("spoil", [_missing, _extra, _shape, _transposed])
def test_gradients_that_do_not_match_are_refused_before_anything_moves(backend, name, spoil):
    params, optimizer = on(backend, host_arrays(0)), getattr(optim, name)()
    optimizer.update(params, on(backend, host_arrays(1)))
    before, memory = bits(backend, params), bits(backend, optimizer.state)
    grads = on(backend, host_arrays(2))
    spoil(params, grads, backend)
    with pytest.raises(ValueError, match="grads"):
        optimizer.update(params, grads)
    assert bits(backend, params) == before
    assert bits(backend, optimizer.state) == memory
    assert optimizer.steps == 1


@pytest.mark.parametrize("name", ALL)
def test_a_read_only_parameter_is_refused_before_anything_moves(name):
    params, optimizer = host_arrays(0), getattr(optim, name)()
    params["0.bias"].flags.writeable = False
    before = {k: a.tobytes() for k, a in params.items()}
    with pytest.raises(ValueError, match=r"0\.bias.*read-only"):
        optimizer.update(params, host_arrays(1))
    assert {k: a.tobytes() for k, a in params.items()} == before
    assert (optimizer.steps, optimizer.state) == (0, {})


@pytest.mark.parametrize("name", ALL)
def test_a_parameter_that_overlaps_itself_is_refused_before_anything_moves(name):
    params, optimizer = host_arrays(0), getattr(optim, name)()
    whole = params["0.bias"]
    params["0.bias"] = np.lib.stride_tricks.as_strided(whole, whole.shape, [0] * whole.ndim)
    before = {k: a.tobytes() for k, a in params.items()}
    with pytest.raises(ValueError, match=r"0\.bias.* must not overlap itself"):
        optimizer.update(params, host_arrays(1))
    assert {k: a.tobytes() for k, a in params.items()} == before
    assert (optimizer.steps, optimizer.state) == (0, {})


@pytest.mark.parametrize("name", ALL)
def test_a_number_of_lrs_other_than_that_of_replicas_is_refused_before_anything_moves(backend, name):
    params, optimizer = on(backend, host_arrays(0, (2,))), getattr(optim, name)(lr=[0.1, 0.2, 0.3])
    before = bits(backend, params)
    with pytest.raises(ValueError, match="3 replicas"):
        optimizer.update(params, on(backend, host_arrays(1, (2,))))
    assert bits(backend, params) == before
    assert (optimizer.steps, optimizer.state) == (0, {})


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_another_backend_are_refused_before_anything_moves(backend, name):
    foreign = get_backend("strict" if backend.name == "numpy" else "numpy")
    params, optimizer = on(backend, host_arrays(0)), getattr(optim, name)()
    before = bits(backend, params)
    grads = {**on(backend, host_arrays(1)), "0.bias": foreign.asarray(host_arrays(1)["0.bias"])}
    with pytest.raises(TypeError, match="one backend"):
        optimizer.update(params, grads)
    assert bits(backend, params) == before
    assert (optimizer.steps, optimizer.state) == (0, {})


@pytest.mark.parametrize("name", ALL)
def test_integer_parameters_are_refused_before_anything_moves(backend, name):
    whole = {"w": np.arange(1, 4), "v": np.arange(3)}
    params, optimizer = on(backend, whole), getattr(optim, name)()
    with pytest.raises(TypeError):
        optimizer.update(params, on(backend, whole))
    np.testing.assert_array_equal(backend.to_numpy(params["w"]), whole["w"])
    assert (optimizer.steps, optimizer.state) == (0, {})


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: optim.SGD(lr=-0.1), ValueError),
        (lambda: optim.SGD(lr=float("nan")), ValueError),
        (lambda: optim.SGD(lr=float("inf")), ValueError),
        (lambda: optim.SGD(lr=[0.1, -0.1]), ValueError),
        (lambda: optim.SGD(lr=[[0.1]]), ValueError),
        (lambda: optim.Momentum(momentum=1.0), ValueError),
        (lambda: optim.Nesterov(momentum=-0.1), ValueError),
        (lambda: optim.AdaGrad(eps=-1e-3), ValueError),
        (lambda: optim.RMSProp(alpha=1.5), ValueError),
        (lambda: optim.Adam(beta1=1.0), ValueError),
        (lambda: optim.Adam(beta2=float("nan")), ValueError),
        (lambda: optim.AdamW(weight_decay=-1.0), ValueError),
        (lambda: optim.Momentum(momentum="0.9"), TypeError),
        (lambda: optim.Adam(eps=None), TypeError),
    ],
)
def test_a_setting_out_of_bounds_is_refused(make, error):
    with pytest.raises(error, match="must be"):
        make()


@pytest.mark.parametrize("lr", ["0.1", None])
def test_an_lr_that_is_no_number_is_a_type_error(lr):
    with pytest.raises(TypeError, match="lr"):
        optim.SGD(lr=lr)
