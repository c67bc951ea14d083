"""An optimizer with memory belongs to the arrays that it was first called with."""

import copy
import pickle

import numpy as np
import pytest
from small_params import ALL, bits, host_arrays, on
from small_training import make, train

from bnkit import optim

WITH_MEMORY = ALL[1:]


def step(backend, optimizer, params, seed=1):
    optimizer.update(params, on(backend, host_arrays(seed)))


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_other_arrays_of_the_same_names_and_shapes_are_refused_before_any_write(backend, name):
    first, second, optimizer = on(backend, host_arrays(0)), on(backend, host_arrays(5)), getattr(optim, name)()
    step(backend, optimizer, first)
    before, memory = bits(backend, second), bits(backend, optimizer.state)
    with pytest.raises(ValueError, match=rf"must be the array of this {name}'s earlier updates.*or call reset\(\)"):
        step(backend, optimizer, second)
    assert bits(backend, second) == before
    assert bits(backend, optimizer.state) == memory
    assert optimizer.steps == 1
    step(backend, optimizer, first)
    assert optimizer.steps == 2


@pytest.mark.parametrize("name", ALL)
def test_a_reset_optimizer_is_as_a_new_one(backend, name):
    used, new = (getattr(optim, name)(lr=0.1) for _ in range(2))
    step(backend, used, on(backend, host_arrays(0)))
    used.reset()
    assert used.state == {}
    assert used.steps == 0
    params = [on(backend, host_arrays(5)) for _ in range(2)]
    for optimizer, own in zip((used, new), params, strict=True):
        step(backend, optimizer, own)
        step(backend, optimizer, own, 2)
    assert bits(backend, params[0]) == bits(backend, params[1])


def test_gradient_descent_remembers_nothing_and_serves_any_arrays(backend):
    optimizer = optim.SGD()
    for seed in range(2):
        step(backend, optimizer, on(backend, host_arrays(seed)))
    assert optimizer.steps == 2


def test_views_of_the_same_memory_are_the_same_parameters():
    arrays, optimizer = host_arrays(0), optim.Adam()
    for seed in range(1, 4):
        optimizer.update({k: a[...] for k, a in arrays.items()}, host_arrays(seed))
    expected, other = host_arrays(0), optim.Adam()
    for seed in range(1, 4):
        other.update(expected, host_arrays(seed))
    assert all(np.array_equal(arrays[k], expected[k]) for k in arrays)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("together", [True, False])
def test_copies_of_a_model_and_its_optimizer_go_on_together(backend, copied, together):
    model, optimizer = make(backend), optim.Adam()
    train(model, optimizer=optimizer, epochs=1)
    pair = copied((model, optimizer)) if together else (copied(model), copied(optimizer))
    assert train(pair[0], optimizer=pair[1]) == train(model, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"reset\(\)"):
        train(model, optimizer=pair[1])


def test_a_used_optimizer_is_that_of_the_model_which_a_checkpoint_gives(backend, tmp_path):
    path = tmp_path / "run.npz"
    expected = train(make(backend), optimizer=optim.Adam(), epochs=3)
    used = optim.Adam()
    train(make(backend), optimizer=used, epochs=2, checkpoint=path)
    assert train(make(backend), optimizer=used, epochs=3, checkpoint=path) == expected


def test_a_frozen_part_that_thaws_gets_its_memory_then(backend):
    params, optimizer = on(backend, host_arrays(0)), optim.Adam()
    names = list(params)
    gradients = on(backend, host_arrays(1))
    optimizer.update({names[0]: params[names[0]]}, {names[0]: gradients[names[0]]})
    optimizer.update(params, gradients)
    assert {key.rpartition("/")[0] for key in optimizer.state} == set(names)


@pytest.mark.parametrize("name", ["AdaGrad", "RMSProp", "Adam", "AdamW"])
def test_eps_that_is_0_in_the_dtype_of_the_parameters_is_refused(backend, name):
    with pytest.raises(ValueError, match="eps must be above 0"):
        getattr(optim, name)(eps=0.0)
    params = on(backend, host_arrays(0, dtype="float32"))
    before, optimizer = bits(backend, params), getattr(optim, name)(eps=1e-46)
    with pytest.raises(ValueError, match=r"eps must be above 0 in float32.*got 1e-46"):
        optimizer.update(params, on(backend, host_arrays(1, dtype="float32")))
    assert bits(backend, params) == before
    assert optimizer.state == {}
    smallest = getattr(optim, name)(eps=1e-45)  # the least that float32 holds
    smallest.update(params, {k: backend.xp.zeros_like(p) for k, p in params.items()})
    assert all(np.isfinite(backend.to_numpy(p)).all() for p in params.values())
    step(backend, getattr(optim, name)(eps=1e-46), on(backend, host_arrays(0)))  # float64 holds it


def test_params_and_grads_that_are_no_dictionaries_are_named():
    with pytest.raises(TypeError, match="params must be a dictionary of arrays by name"):
        optim.SGD().update([np.ones(3)], {})
    with pytest.raises(TypeError, match="grads must be a dictionary of arrays by name"):
        optim.SGD().update({}, ())
