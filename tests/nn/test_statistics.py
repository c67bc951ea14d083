"""update_statistics: the running statistics of a whole dataset, by layers in their order, or nothing at all."""

import copy
import tracemalloc

import numpy as np
import pytest
from small_layers import draw, on
from small_mlp import batch, everything, host, make, stir

from bnkit import BatchNorm, Dropout, Linear, ReLU, Sequential, Tanh, update_statistics
from bnkit.data import Dataset

# Two passes in float64, over other groups of rows.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def cut(x: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(x, np.cumsum(sizes), axis=-2)


def check_is_population(backend, layers, x: np.ndarray, correction: int = 1, axes: tuple[int, ...] = (0,)) -> int:
    """Every batch norm has the statistics of what the layers before it give for all of x in inference."""
    a, found = on(backend, x), 0
    for layer in layers:
        if isinstance(layer, BatchNorm):
            given, state, found = backend.to_numpy(a), host(backend, layer.state), found + 1
            np.testing.assert_allclose(state["running_mean"], given.mean(axes), **ROUNDING)
            np.testing.assert_allclose(state["running_var"], given.var(axes, ddof=correction), **ROUNDING)
        a, _ = layer.forward(a, train=False)
    return found


@pytest.mark.parametrize("options", [{}, {"activation": "sigmoid", "dropout": 0.5}], ids=str)
@pytest.mark.parametrize("sizes", [(40,), (3, 20), (1, 0, 16)], ids=str)
def test_every_layer_gets_the_statistics_of_what_inference_gives_it(backend, options, sizes):
    model, (x, _) = stir(make(backend, **options)), batch(40)
    update_statistics(model, cut(x, *sizes))
    assert check_is_population(backend, model.network.layers, x) == 2


def test_replicas_get_their_own_statistics(backend):
    model, (x, _) = stir(make(backend, replicas=2, seed=[3, 4])), batch(30)
    update_statistics(model, cut(x, 7, 11))
    for r in range(2):
        single = stir(make(backend, seed=3 + r))
        for name, p in single.params.items():
            p[...] = model.params[name][r, ...]
        update_statistics(single, [x])
        for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
            got, want = (host(backend, m.state)[name] for m in (model, single))
            np.testing.assert_allclose(got[r], want, **ROUNDING)


@pytest.mark.parametrize("correction", [0, 1])
def test_the_variance_is_by_the_correction_of_the_layer(backend, correction):
    layer, x = BatchNorm(3, correction=correction, backend=backend, dtype="float64"), draw(9, 3)
    update_statistics(layer, [on(backend, part) for part in cut(x, 4)])
    check_is_population(backend, [layer], x, correction)


def test_channels_of_images_are_reduced_over_all_else(backend):
    layer, x = BatchNorm(3, backend=backend, dtype="float64"), draw(6, 3, 4, 5)
    update_statistics(layer, (on(backend, part) for part in np.split(x, [1, 2])))
    check_is_population(backend, [layer], x, axes=(0, 2, 3))


def test_the_count_is_the_number_of_batches_that_hold_data(backend):
    model, (x, _) = make(backend), batch(9)
    model.loss_and_grads(*batch(9))
    update_statistics(model, cut(x, 4, 0, 2))
    assert {name: int(a) for name, a in model.state.items() if name.endswith("count")} == {"1.count": 3, "4.count": 3}


def test_what_the_statistics_were_and_decay_do_not_enter(backend):
    (x, _), models = batch(9), [make(backend, batch_norm={"decay": d}) for d in (0.9, None)]
    for a in models[1].state.values():
        a[...] = a + 5
    for model in models:
        update_statistics(model, [x])
    assert everything(models[0]) == everything(models[1])


def test_arrays_stay_the_same_objects(backend):
    model, (x, _) = make(backend), batch(9)
    before = dict(model.state)
    update_statistics(model, [x])
    assert all(model.state[name] is a for name, a in before.items())


def test_parameters_do_not_move(backend):
    model, (x, _) = make(backend), batch(9)
    before = host(backend, model.params)
    update_statistics(model, [x])
    for name, p in host(backend, model.params).items():
        np.testing.assert_array_equal(p, before[name])


def given_as(kind: str, x: np.ndarray, t: np.ndarray, folder):
    if kind == "memmap":
        x.tofile(folder / "x")
        return np.memmap(folder / "x", x.dtype, "r", shape=x.shape)
    pairs = [(x[i : i + 10], t[i : i + 10]) for i in range(0, len(x), 10)]
    return {
        "array": x,
        "pair": (x, t),
        "dataset": Dataset(x, t, x[:2], t[:2]),
        "pairs": pairs,
        "lists": [list(pair) for pair in pairs],
        "function": lambda: iter(pairs),
        "function of a list": lambda: [p[0] for p in pairs],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["array", "memmap", "pair", "dataset", "pairs", "lists", "function", "function of a list"]
)
def test_data_may_come_in_many_ways(backend, kind, tmp_path):
    (x, t), models = batch(25), [make(backend) for _ in range(2)]
    update_statistics(models[0], [x[:10], x[10:20], x[20:]])
    update_statistics(models[1], given_as(kind, x, t, tmp_path), batch_size=10)
    assert everything(models[0]) == everything(models[1])


def test_a_whole_array_with_replicas_is_cut_along_its_rows(backend):
    (x, _), models = batch(25, lead=(2,)), [make(backend, replicas=2, seed=[3, 4]) for _ in range(2)]
    update_statistics(models[0], [x[:, :10], x[:, 10:20], x[:, 20:]])
    update_statistics(models[1], x, batch_size=10)
    assert everything(models[0]) == everything(models[1])


@pytest.mark.parametrize(("features", "axis", "shape"), [((2, 3), (0, 2), (2, 25, 3)), (3, 0, (3, 25))], ids=str)
def test_a_whole_array_is_cut_along_the_axis_that_the_layer_reduces(backend, features, axis, shape):
    layer, x = BatchNorm(features, axis=axis, backend=backend, dtype="float64"), draw(*shape)
    update_statistics(layer, on(backend, x), batch_size=1)
    check_is_population(backend, [layer], x, axes=(1,))
    assert int(layer.state["count"]) == 25


def test_a_generator_serves_one_batch_norm(backend):
    layer, x = BatchNorm(3, backend=backend, dtype="float64"), draw(9, 3)
    update_statistics(layer, (on(backend, part) for part in cut(x, 4)))
    check_is_population(backend, [layer], x)


def test_a_generator_for_more_batch_norms_is_refused_before_it_is_read(backend):
    model, read = make(backend), []
    with pytest.raises(ValueError, match=r"batches must be read 2 times.*generator.*pass a function.*one_pass=True"):
        update_statistics(model, (read.append(i) for i in range(3)))
    assert read == []


def test_one_pass_normalizes_by_each_batchs_own_statistics(backend):
    model, (x, _) = stir(make(backend, dropout=0.5)), batch(20)
    parts = cut(x, 8)
    update_statistics(model, iter(parts), one_pass=True)
    second = []
    for part in parts:
        a = on(backend, part)
        for layer in model.network.layers[:5]:
            a, _ = copy.deepcopy(layer).forward(a, train=isinstance(layer, BatchNorm))
        second.append(backend.to_numpy(a))
    state, second = host(backend, model.state), np.concatenate(second)
    np.testing.assert_allclose(state["5.running_mean"], second.mean(0), **ROUNDING)
    np.testing.assert_allclose(state["5.running_var"], second.var(0, ddof=1), **ROUNDING)
    check_is_population(backend, model.network.layers[:2], x)
    assert int(state["1.count"]) == int(state["5.count"]) == 2


@pytest.mark.parametrize("options", [{"renorm": (1.5, 0.5)}, {"ghost": 3}, {"reduce": lambda a: 1 / 0}], ids=str)
def test_in_one_pass_only_the_batches_statistics_count(backend, options):
    x, found = draw(20, 3), []
    for own, start in ((options, 0.0), (options, 5.0), ({}, 0.0)):
        first, second = (BatchNorm(3, backend=backend, dtype="float64", **o) for o in (own, {}))
        first.state["running_mean"][...] = start
        network = Sequential(first, Tanh(), second)
        update_statistics(network, [on(backend, part) for part in cut(x, 8)], one_pass=True)
        found.append({name: a.tobytes() for name, a in host(backend, network.state).items()})
    assert found[0] == found[1] == found[2]


def test_one_pass_takes_a_batch_of_one_row(backend):
    model, (x, _) = make(backend), batch(5)
    update_statistics(model, iter(cut(x, 4)), one_pass=True)
    check_is_population(backend, model.network.layers[:2], x)


def test_nested_layers_are_found(backend):
    linear = {"backend": backend, "dtype": "float64"}
    inner = Sequential(BatchNorm(4, **linear), ReLU(), Dropout(0.3))
    model = Sequential(
        Linear(5, 4, **linear), inner, Linear(4, 3, **linear), Sequential(Tanh(), BatchNorm(3, **linear))
    )
    x = draw(12, 5)
    update_statistics(model, [on(backend, part) for part in cut(x, 5)])
    flat = [model.layers[0], *inner.layers, model.layers[2], *model.layers[3].layers]
    assert check_is_population(backend, flat, x) == 2


def test_a_layer_without_running_statistics_stays_without(backend):
    model, (x, _) = make(backend, batch_norm={"track": False}), batch(5)
    update_statistics(model, [x])
    assert model.state == {}


def test_float32_keeps_the_statistics_of_data_far_from_zero():
    layer, x = BatchNorm(2, backend="numpy"), (draw(5000, 2) + 1e4).astype("f4")
    update_statistics(layer, x, batch_size=7)
    np.testing.assert_allclose(layer.state["running_mean"], x.astype("f8").mean(0), rtol=6e-8)  # float32's rounding
    # Runs of 7 rows are summed in float32 about a shift, of a spread of order 1.
    np.testing.assert_allclose(layer.state["running_var"], x.astype("f8").var(0, ddof=1), rtol=1e-5)


def test_nan_stays_in_its_channel(backend):
    layer, x = BatchNorm(3, backend=backend, dtype="float64"), draw(9, 3)
    x[4, 1] = np.nan
    update_statistics(layer, [on(backend, part) for part in cut(x, 4)])
    for name in ("running_mean", "running_var"):
        assert np.isnan(host(backend, layer.state)[name]).tolist() == [False, True, False]


def test_progress_tells_the_batches_read_in_all_passes(backend):
    model, (x, _), told = make(backend), batch(9), []
    update_statistics(model, cut(x, 4), on_progress=told.append)
    assert told == [1, 2, 3, 4]


def test_memory_is_that_of_one_batch(tmp_path):
    rows, channels = 40_000, 64
    x = np.memmap(tmp_path / "x", "f4", "w+", shape=(rows, channels))
    x[...] = draw(rows, channels, dtype="float32")
    model = make("numpy", sizes=(channels, 32, 32, 3), dtype="float32")
    update_statistics(model, x[:500], batch_size=250)  # what is made once
    tracemalloc.start()
    update_statistics(model, x, batch_size=250)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # x is 10 MB; a batch and its hidden values are below 0.5 MB.
    assert peak < 1e6
