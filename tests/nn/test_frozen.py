"""`BatchNorm.freeze`: what stays, what the rest of a network and an optimizer see of it, and files."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend
from bnkit.testing.gradients import numerical_gradient

Host = np.ndarray[Any, Any]


def random(*shape: int, dtype: str = "float64", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


def trained(backend: Backend, **options: Any) -> Any:
    """A layer that has seen a batch, with parameters of its own."""
    layer = bnkit.BatchNorm(3, dtype="float64", backend=backend, **options)
    for i, array in enumerate(layer.params.values()):
        array[...] = backend.asarray(random(3, seed=5 + i))
    layer.forward(backend.asarray(random(6, 3, seed=8)), train=True)
    return layer


def host(backend: Backend, arrays: dict[str, Any]) -> dict[str, Host]:
    return {name: np.array(backend.to_numpy(a) if name != "count" else a) for name, a in arrays.items()}


@pytest.mark.parametrize(
    "options", [{}, {"ghost": 2}, {"renorm": (3, 5)}, {"decay": None}, {"activation": "relu"}], ids=str
)
def test_frozen_statistics_are_used_in_training_and_stay(options: dict[str, Any], backend: Backend) -> None:
    layer = trained(backend, **options)
    layer.freeze(parameters=False)
    before = host(backend, layer.state)
    x, mask = backend.asarray(random(6, 3)), backend.asarray(random(6, seed=1) > 0)
    y, _ = layer.forward(x, train=True, mask=mask)
    want, _ = layer.forward(x, train=False)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(want))
    for name, array in host(backend, layer.state).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert list(layer.params) == ["gamma", "beta"]


@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_with_frozen_statistics_meet_central_differences(in_place: bool, backend: Backend) -> None:
    layer = trained(backend, in_place=in_place)
    layer.freeze(parameters=False)
    x, dy, xp = backend.asarray(random(6, 3)), backend.asarray(random(6, 3, seed=1)), backend.xp

    def forward() -> Any:
        return layer.forward(xp.asarray(x, copy=True), train=True)

    dx, grads = layer.backward(dy, forward()[1])
    for array, gradient in ((x, dx), *((layer.params[n], grads[n]) for n in ("gamma", "beta"))):
        numerical = numerical_gradient(lambda: xp.sum(forward()[0] * dy), array)
        # linear in each of them: what is left is the rounding of the sums over 2h
        np.testing.assert_allclose(backend.to_numpy(gradient), numerical, rtol=1e-8, atol=1e-8)


def test_frozen_parameters_are_used_and_get_no_gradient(backend: Backend) -> None:
    layer = trained(backend)
    gamma = layer.params["gamma"]
    twin = copy.deepcopy(layer)
    layer.freeze(statistics=False)
    assert layer.params == {}
    assert layer.frozen["gamma"] is gamma
    x, dy = backend.asarray(random(6, 3)), backend.asarray(random(6, 3, seed=1))
    (y, cache), (want, want_cache) = (a.forward(x, train=True) for a in (layer, twin))
    dx, grads = layer.backward(dy, cache)
    assert grads == {}
    pairs = [(y, want), (dx, twin.backward(dy, want_cache)[0])]
    pairs += list(zip(list(layer.state.values())[:2], list(twin.state.values())[:2], strict=True))  # these still move
    for got, expected in pairs:
        np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(expected))
    assert int(layer.state["count"]) == 2


def test_with_a_residual_backward_still_returns_three(backend: Backend) -> None:
    layer = trained(backend)
    layer.freeze()
    x = backend.asarray(random(6, 3))
    dx, grads, dresidual = layer.backward(x, layer.forward(x, train=True, residual=x)[1])
    assert grads == {}
    assert tuple(dx.shape) == tuple(dresidual.shape) == (6, 3)


def test_each_half_is_unfrozen_by_itself_and_freezing_twice_is_once(backend: Backend) -> None:
    layer = trained(backend)
    gamma = layer.params["gamma"]
    layer.freeze()
    layer.freeze()
    layer.unfreeze(statistics=False)
    assert layer.params["gamma"] is gamma
    assert layer.frozen == {}
    layer.forward(backend.asarray(random(6, 3)), train=True)
    assert int(layer.state["count"]) == 1
    layer.unfreeze()
    layer.forward(backend.asarray(random(6, 3)), train=True)
    assert int(layer.state["count"]) == 2


def test_freezing_one_half_later_keeps_the_other_frozen() -> None:
    layer = trained(bnkit.get_backend("numpy"))
    layer.freeze(parameters=False)
    layer.freeze(statistics=False)
    assert layer.params == {}
    assert not layer.moves_statistics


def test_a_frozen_layer_trains_on_one_row() -> None:
    layer = trained(bnkit.get_backend("numpy"))
    layer.freeze()
    layer.forward(random(1, 3), train=True)


def test_statistics_that_are_not_there_cannot_be_frozen() -> None:
    layer = bnkit.BatchNorm(3, track=False, backend="numpy")
    with pytest.raises(ValueError, match="statistics must be False for a layer with track=False"):
        layer.freeze()
    assert list(layer.params) == ["gamma", "beta"]
    layer.freeze(statistics=False)
    with pytest.raises(TypeError, match="parameters must be True or False, got 'no'"):
        layer.unfreeze(parameters="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))], ids=["deepcopy", "pickle"])
def test_a_copied_layer_is_frozen_too(copied: Any, backend: Backend) -> None:
    layer = trained(backend)
    layer.freeze()
    other = copied(layer)
    assert other.params == {}
    assert not other.moves_statistics
    np.testing.assert_array_equal(*(backend.to_numpy(a.frozen["gamma"]) for a in (layer, other)))


def model(backend: Any, **options: Any) -> bnkit.MLP:
    return bnkit.MLP((6, 5, 4, 3), backend=backend, **options)


def freeze(net: bnkit.MLP, **which: bool) -> None:
    for layer in net.network.layers:
        if isinstance(layer, bnkit.BatchNorm):
            layer.freeze(**which)


DATA = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), np.random.default_rng(1).integers(0, 3, 40)


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("make", [bnkit.optim.AdamW, lambda: bnkit.optim.Momentum(lr=0.1)], ids=["adamw", "momentum"])
def test_an_optimizer_leaves_what_is_frozen_in_the_middle_of_a_training(
    make: Any, replicas: int | None, backend: Backend
) -> None:
    net, optimizer = model(backend, replicas=replicas), make()
    bnkit.fit(net, DATA, optimizer=optimizer, epochs=1, batch_size=10)
    freeze(net)
    before = host(backend, {**net.network.frozen, **net.state, **net.params})
    frozen = [*net.network.frozen, *net.state]
    assert not set(net.params) & set(frozen)
    bnkit.fit(net, DATA, optimizer=optimizer, epochs=1, batch_size=10)
    after = host(backend, {**net.network.frozen, **net.state, **net.params})
    for name, array in after.items():
        assert np.array_equal(array, before[name]) == (name in frozen), name


def test_replicas_in_parts_are_frozen_too(backend: Backend) -> None:
    net = model(backend, replicas=3)
    freeze(net)
    part = net.part(slice(1, 3))
    x, t = DATA[0][:10], DATA[1][:10]
    _, grads = part.loss_and_grads(x, t)
    _, whole = net.loss_and_grads(x, t)
    assert list(grads) == list(part.params) == list(whole)
    for name, gradient in grads.items():
        # float32 products, in another order
        want = backend.to_numpy(whole[name])[1:]
        np.testing.assert_allclose(backend.to_numpy(gradient), want, rtol=1e-4, atol=1e-6)
    assert int(net.state["1.count"]) == 0


def test_fit_takes_a_batch_of_one_row_once_the_statistics_are_frozen() -> None:
    net = model("numpy")
    with pytest.raises(ValueError, match="batch_size"):
        bnkit.fit(net, DATA, optimizer=bnkit.optim.SGD(), epochs=1, batch_size=1)
    freeze(net, parameters=False)
    bnkit.fit(net, DATA, optimizer=bnkit.optim.SGD(), epochs=1, batch_size=1)


def test_a_file_holds_what_is_frozen_and_loads_unfrozen(tmp_path: Any, backend: Backend) -> None:
    net = model(backend)
    bnkit.fit(net, DATA, optimizer=bnkit.optim.SGD(), epochs=1, batch_size=10)
    names = list(net.params)
    freeze(net)
    net.save(tmp_path / "net.npz")
    other = bnkit.MLP.load(tmp_path / "net.npz", backend=backend)
    assert list(other.params) == names
    np.testing.assert_array_equal(*(backend.to_numpy(a.predict(DATA[0])) for a in (net, other)))


def test_a_killed_training_of_a_frozen_network_goes_on(tmp_path: Any) -> None:
    def run(epochs: int, path: Any) -> Any:
        net = model("numpy")
        freeze(net)
        optimizer = bnkit.optim.Adam()
        records = bnkit.fit(net, DATA, optimizer=optimizer, epochs=epochs, batch_size=10, checkpoint=path)
        return records, net.arrays()

    run(1, tmp_path / "a.npz")
    resumed, whole = run(3, tmp_path / "a.npz"), run(3, tmp_path / "b.npz")
    assert resumed[0] == whole[0]
    for name, array in whole[1].items():
        np.testing.assert_array_equal(resumed[1][name], array)


def test_update_statistics_leaves_frozen_ones_and_moves_the_others(backend: Backend) -> None:
    frozen, moved = trained(backend), trained(backend)
    frozen.freeze(parameters=False)
    before = host(backend, frozen.state)
    x = random(20, 3, seed=3)
    bnkit.update_statistics(bnkit.Sequential(frozen, moved), [backend.asarray(x)])
    for name, array in host(backend, frozen.state).items():
        np.testing.assert_array_equal(array, before[name])
    seen = backend.to_numpy(frozen.forward(backend.asarray(x), train=False)[0])
    # the same float64 sums, perhaps in another order
    np.testing.assert_allclose(host(backend, moved.state)["running_mean"], seen.mean(axis=0), rtol=1e-12)


def test_a_frozen_layer_is_folded_with_its_parameters(backend: Backend) -> None:
    linear = bnkit.Linear(4, 3, init=1.0, dtype="float64", backend=backend)
    norm = trained(backend)
    norm.freeze()
    x = backend.asarray(random(5, 4))
    network = bnkit.Sequential(linear, norm)
    y, folded = (backend.to_numpy(n.forward(x, train=False)[0]) for n in (network, bnkit.fold(network)))
    np.testing.assert_allclose(folded, y, rtol=1e-12)  # factors multiplied in another order
