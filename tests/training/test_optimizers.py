"""What an optimizer writes, remembers, tells and copies."""

import copy
import pickle

import numpy as np
import pytest
from small_params import ALL, SHAPES, bits, host_arrays, on

from bnkit import optim

WITH_MEMORY = ALL[1:]
RATES = [0.1, 0.001, 0.03]


@pytest.mark.parametrize("name", ALL)
def test_update_writes_in_place_and_keeps_every_array(backend, name):
    params = on(backend, host_arrays(0))
    kept, before, optimizer = dict(params), bits(backend, params), getattr(optim, name)()
    optimizer.update(params, on(backend, host_arrays(1)))
    memory = dict(optimizer.state)
    optimizer.update(params, on(backend, host_arrays(2)))
    assert all(params[key] is kept[key] for key in kept)
    assert all(optimizer.state[key] is memory[key] for key in memory)
    assert all(bits(backend, params)[key] != before[key] for key in kept)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_left_untouched(backend, name):
    params, gradients, optimizer = on(backend, host_arrays(0)), on(backend, host_arrays(1)), getattr(optim, name)()
    before = bits(backend, gradients)
    for _ in range(3):
        optimizer.update(params, gradients)
    assert bits(backend, gradients) == before


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_memory_is_named_by_parameter_and_slot_and_lies_on_the_backend(backend, name):
    optimizer = getattr(optim, name)()
    assert optimizer.state == {}
    optimizer.update(on(backend, host_arrays(0)), on(backend, host_arrays(1)))
    assert set(optimizer.state) == {f"{key}/{slot}" for key in SHAPES for slot in optimizer.slots}
    for key, array in optimizer.state.items():
        assert tuple(array.shape) == SHAPES[key.rpartition("/")[0]]
        assert type(array) is type(backend.asarray(np.ones(1)))


def test_steps_count_the_updates(backend):
    params, optimizer = on(backend, host_arrays(0)), optim.Adam()
    for expected in range(1, 4):
        optimizer.update(params, on(backend, host_arrays(1)))
        assert optimizer.steps == expected


@pytest.mark.parametrize(("name", "lr"), [*((name, RATES) for name in ALL), ("SGD", np.array(RATES))])
def test_with_one_lr_a_replica_each_equals_its_single_run(backend, name, lr):
    start, steps = host_arrays(0, (3,)), [host_arrays(s, (3,)) for s in range(1, 5)]
    params, optimizer = on(backend, start), getattr(optim, name)(lr=lr)
    for gradients in steps:
        optimizer.update(params, on(backend, gradients))
    for r in range(3):
        single, alone = on(backend, {k: a[r] for k, a in start.items()}), getattr(optim, name)(lr=float(lr[r]))
        for gradients in steps:
            alone.update(single, on(backend, {k: a[r] for k, a in gradients.items()}))
        for key in SHAPES:
            # The same operations on float64 elements; a vector unit may fuse or order the scalings differently.
            np.testing.assert_allclose(
                backend.to_numpy(params[key])[r], backend.to_numpy(single[key]), rtol=1e-14, atol=1e-15
            )


def test_one_lr_serves_all_replicas(backend):
    start, gradients = host_arrays(0, (2,)), host_arrays(1, (2,))
    params = on(backend, start)
    optim.SGD(lr=0.5).update(params, on(backend, gradients))
    for key in SHAPES:
        np.testing.assert_array_equal(backend.to_numpy(params[key]), start[key] - 0.5 * gradients[key])


def test_lr_of_zero_moves_nothing(backend):
    params = on(backend, host_arrays(0))
    before = bits(backend, params)
    optim.Adam(lr=0.0).update(params, on(backend, host_arrays(1)))
    assert bits(backend, params) == before


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinite_gradients_give_no_warning(backend, name, dtype):
    params, optimizer = on(backend, host_arrays(0, dtype=dtype)), getattr(optim, name)()
    largest = float(np.finfo(dtype).max)
    for value in (largest, np.inf, -np.inf, np.nan, 1.0):
        optimizer.update(params, {k: backend.xp.full_like(p, value) for k, p in params.items()})
    assert not np.isfinite(backend.to_numpy(params["0.weight"])).any()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_as_the_original_and_apart_from_it(backend, name, copied):
    params, optimizer = on(backend, host_arrays(0)), getattr(optim, name)(lr=0.1)
    for s in (1, 2):
        optimizer.update(params, on(backend, host_arrays(s)))
    twin, mine = copied(optimizer), on(backend, {k: backend.to_numpy(p) for k, p in params.items()})
    assert repr(twin) == repr(optimizer)
    memory = bits(backend, optimizer.state)
    for s in (3, 4):
        twin.update(mine, on(backend, host_arrays(s)))
    assert bits(backend, optimizer.state) == memory
    for s in (3, 4):
        optimizer.update(params, on(backend, host_arrays(s)))
    assert bits(backend, params) == bits(backend, mine)
    assert twin.steps == optimizer.steps == 4


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optim.SGD(), "SGD(lr=0.01)"),
        (optim.Momentum(lr=0.5, momentum=0.8), "Momentum(lr=0.5, momentum=0.8)"),
        (optim.AdaGrad(), "AdaGrad(lr=0.01, eps=1e-10)"),
        (optim.RMSProp(), "RMSProp(lr=0.01, alpha=0.99, eps=1e-08)"),
        (optim.Adam(lr=[0.1, 0.2]), "Adam(lr=[0.1, 0.2], beta1=0.9, beta2=0.999, eps=1e-08)"),
        (optim.AdamW(lr=1), "AdamW(lr=1.0, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.01)"),
    ],
)
def test_repr_is_the_call_that_makes_it(optimizer, expected):
    assert repr(optimizer) == expected
    assert repr(eval(f"optim.{expected}")) == expected


def test_every_optimizer_is_found_by_its_lower_case_name():
    assert list(optim.BY_NAME) == [n.lower() for n in ALL]
    assert list(optim.BY_NAME.values()) == [getattr(optim, n) for n in ALL]
