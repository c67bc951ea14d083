import copy
import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from bnkit import get_backend, optim

SHAPES = {"0.weight": (3, 4), "0.bias": (4,)}
ALL = ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW"]
WITH_MEMORY = ALL[1:]


def host_arrays(seed: int, lead: tuple[int, ...] = (), dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*lead, *shape)).astype(dtype) for name, shape in SHAPES.items()}


def on(backend, arrays: dict[str, np.ndarray]) -> dict:
    return {name: backend.asarray(a.copy()) for name, a in arrays.items()}


def bits(backend, arrays: dict) -> dict[str, bytes]:
    return {name: backend.to_numpy(a).tobytes() for name, a in arrays.items()}


# Each paper's formula with its own symbols, one parameter, one step after the other.


def sgd(p, gradients, lr=0.01) -> Iterator[np.ndarray]:
    for g in gradients:
        p = p - lr * g
        yield p


def momentum(p, gradients, lr=0.01, mu=0.9) -> Iterator[np.ndarray]:
    """Polyak 1964: v is the sum of all gradients, each weighed by mu to the power of its age."""
    for t in range(1, len(gradients) + 1):
        v = sum(mu ** (t - s) * gradients[s - 1] for s in range(1, t + 1))
        p = p - lr * v
        yield p


def nesterov(p, gradients, lr=0.01, mu=0.9) -> Iterator[np.ndarray]:
    """Sutskever et al. 2013, equations 3 and 4, in terms of the point θ + mu v where the gradient is taken."""
    theta, v = p, np.zeros_like(p)
    for g in gradients:
        v = mu * v - lr * g
        theta = theta + v
        yield theta + mu * v


def adagrad(p, gradients, lr=0.01, eps=1e-10) -> Iterator[np.ndarray]:
    for t in range(1, len(gradients) + 1):
        p = p - lr / (np.sqrt(sum(g**2 for g in gradients[:t])) + eps) * gradients[t - 1]
        yield p


def rmsprop(p, gradients, lr=0.01, alpha=0.99, eps=1e-8) -> Iterator[np.ndarray]:
    for t in range(1, len(gradients) + 1):
        mean_square = sum((1 - alpha) * alpha ** (t - s) * gradients[s - 1] ** 2 for s in range(1, t + 1))
        p = p - lr * gradients[t - 1] / (np.sqrt(mean_square) + eps)
        yield p


def adam(p, gradients, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0) -> Iterator[np.ndarray]:
    """Kingma & Ba 2015, algorithm 1; with weight_decay Loshchilov & Hutter 2019, algorithm 2, line 12."""
    for t in range(1, len(gradients) + 1):
        ages = [(t - s, gradients[s - 1]) for s in range(1, t + 1)]
        m_hat = sum((1 - beta1) * beta1**age * g for age, g in ages) / (1 - beta1**t)
        v_hat = sum((1 - beta2) * beta2**age * g**2 for age, g in ages) / (1 - beta2**t)
        p = p - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p)
        yield p


def adamw(p, gradients, weight_decay=0.01, **settings) -> Iterator[np.ndarray]:
    return adam(p, gradients, weight_decay=weight_decay, **settings)


CASES = [
    ("SGD", sgd, {}, {}),
    ("SGD", sgd, {"lr": 0.3}, {"lr": 0.3}),
    ("Momentum", momentum, {}, {}),
    ("Momentum", momentum, {"lr": 0.2, "momentum": 0.5}, {"lr": 0.2, "mu": 0.5}),
    ("Nesterov", nesterov, {}, {}),
    ("Nesterov", nesterov, {"lr": 0.2, "momentum": 0.5}, {"lr": 0.2, "mu": 0.5}),
    ("AdaGrad", adagrad, {}, {}),
    ("AdaGrad", adagrad, {"lr": 0.1, "eps": 0.01}, {"lr": 0.1, "eps": 0.01}),
    ("RMSProp", rmsprop, {}, {}),
    ("RMSProp", rmsprop, {"lr": 0.1, "alpha": 0.7, "eps": 0.01}, {"lr": 0.1, "alpha": 0.7, "eps": 0.01}),
    ("Adam", adam, {}, {}),
    ("Adam", adam, *[{"lr": 0.1, "beta1": 0.6, "beta2": 0.8, "eps": 0.01}] * 2),
    ("AdamW", adamw, {}, {}),
    ("AdamW", adamw, *[{"lr": 0.1, "beta1": 0.6, "beta2": 0.8, "eps": 0.01, "weight_decay": 0.2}] * 2),
]


@pytest.mark.parametrize(("name", "paper", "settings", "symbols"), CASES)
def test_each_step_is_the_papers_formula(backend, name, paper, settings, symbols):
    start, steps = host_arrays(0), [host_arrays(s) for s in range(1, 8)]
    params, optimizer = on(backend, start), getattr(optim, name)(**settings)
    expected = {key: paper(p, [g[key] for g in steps], **symbols) for key, p in start.items()}
    for gradients in steps:
        optimizer.update(params, on(backend, gradients))
        for key, p in params.items():
            # Seven steps of a dozen roundings each, on values of order 1.
            np.testing.assert_allclose(backend.to_numpy(p), next(expected[key]), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "paper", "settings", "symbols"), CASES)
def test_float32_stays_float32_and_near_the_formula(backend, name, paper, settings, symbols):
    start, steps = host_arrays(0, dtype="float32"), [host_arrays(s, dtype="float32") for s in range(1, 5)]
    params, optimizer = on(backend, start), getattr(optim, name)(**settings)
    for gradients in steps:
        optimizer.update(params, on(backend, gradients))
    for key, p in params.items():
        *_, last = paper(start[key].astype(np.float64), [g[key].astype(np.float64) for g in steps], **symbols)
        found = backend.to_numpy(p)
        assert found.dtype == np.float32
        # Four steps of a dozen roundings of 6e-8 on values up to 4.
        np.testing.assert_allclose(found, last, rtol=0, atol=4 * 12 * 6e-8 * 4)
    assert {str(backend.to_numpy(a).dtype) for a in optimizer.state.values()} <= {"float32"}


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
    optimizer = optim.Adam()
    for expected in range(1, 4):
        optimizer.update(on(backend, host_arrays(0)), on(backend, host_arrays(1)))
        assert optimizer.steps == expected


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("lr", [[0.1, 0.001, 0.03], np.array([0.1, 0.001, 0.03])])
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
