"""Batch norm over ranks that threads stand for, as a function and a layer: uneven and empty ones, what is counted."""

import copy
import functools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import textbook

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}  # float64: a few roundings


def random(*shape: int, seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape)


def parameters(channels: int) -> list[Host]:
    """gamma, beta, running_mean, running_var"""
    rng = np.random.default_rng(channels)
    return [rng.uniform(low, 2, channels) for low in (-2, -1, -1, 0.5)]


def on_ranks(ranks: int, work: Callable[[int, Callable[[Any], Any]], Any]) -> list[Any]:
    """What work(rank, reduce) returns on each rank; all reduce in step."""
    barrier, parts, results = threading.Barrier(ranks, timeout=60), {}, {}

    def reduce(rank: int, part: Any) -> Any:
        parts[rank] = part
        barrier.wait()
        total = functools.reduce(lambda a, b: a + b, [parts[r] for r in range(ranks)])
        barrier.wait()
        return total

    def guarded(rank: int) -> None:
        try:
            results[rank] = work(rank, functools.partial(reduce, rank))
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=guarded, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[rank] for rank in range(ranks)]


@pytest.mark.parametrize("cuts", [(4,), (1,), (0,), (9,), (3, 3), (2, 7)], ids=str)
@pytest.mark.parametrize("option", [None, "mask", "residual and relu"])
def test_ranks_that_reduce_give_what_the_whole_batch_gives(
    cuts: tuple[int, ...], option: str | None, backend: Backend
) -> None:
    x, dy, residual, small = random(9, 4), random(9, 4, seed=1), random(9, 4, seed=2), parameters(4)
    mask = random(9, 4, seed=3) > -0.3
    options: dict[str, Host] = {"mask": mask} if option == "mask" else {}
    activation = None
    if option == "residual and relu":
        options, activation = {"residual": residual}, "relu"
    bounds, calls = [0, *cuts, 9], []

    def there(a: Host) -> Any:
        return backend.asarray(a.copy())

    def work(rank: int, reduce: Callable[[Any], Any]) -> list[Host]:
        def counted(a: Any) -> Any:
            calls.append(rank)
            return reduce(a)

        rows = slice(bounds[rank], bounds[rank + 1])
        arrays = [there(a) for a in small]
        own = {name: there(a[rows]) for name, a in options.items()}
        y, cache = bnkit.batch_norm(there(x[rows]), *arrays, train=True, activation=activation, reduce=counted, **own)
        grads = bnkit.batch_norm_backward(there(dy[rows]), cache)
        return [backend.to_numpy(a) for a in (y, grads.dx, *arrays[2:], grads.dgamma, grads.dbeta)]

    results = on_ranks(len(bounds) - 1, work)
    assert sorted(calls) == sorted(3 * list(range(len(results))))
    want = textbook.forward(x, *small, activation=activation, **options)
    gradients = textbook.backward(dy, x, *small, activation=activation, **options)
    joined = [np.concatenate([r[i] for r in results]) for i in (0, 1)]
    for got, wanted in zip(joined, (want.y, gradients.dx), strict=True):
        np.testing.assert_allclose(got, wanted.astype(float), **EXACT)
    for result in results:
        np.testing.assert_allclose(result[2], want.running_mean.astype(float), **EXACT)
        np.testing.assert_allclose(result[3], want.running_var.astype(float), **EXACT)
    for i, wanted in ((4, gradients.dgamma), (5, gradients.dbeta)):  # each rank has the gradient of its own rows
        np.testing.assert_allclose(sum(r[i] for r in results), wanted.astype(float), **EXACT)


def test_ranks_that_are_all_empty_move_nothing(backend: Backend) -> None:
    small = [backend.asarray(a.copy()) for a in parameters(4)]
    y, cache = bnkit.batch_norm(backend.asarray(random(0, 4)), *small, train=True, reduce=lambda a: a + a)
    bnkit.batch_norm_backward(y, cache)
    for a, b in zip(small, parameters(4), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), b)


def test_a_rank_that_fails_has_written_nothing(backend: Backend) -> None:
    calls = []

    def fails(a: Any) -> Any:
        calls.append(a)
        if len(calls) == 2:
            raise ConnectionError
        return a

    small, out = [backend.asarray(a.copy()) for a in parameters(4)], backend.asarray(random(7, 4, seed=1))
    with pytest.raises(ConnectionError):
        bnkit.batch_norm(backend.asarray(random(7, 4)), *small, train=True, reduce=fails, out=out)
    for a, b in zip((*small, out), (*parameters(4), random(7, 4, seed=1)), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), b)


def test_reduce_is_not_called_in_inference(backend: Backend) -> None:
    def never(a: Any) -> Any:
        raise AssertionError("inference needs no other rank")

    small = [backend.asarray(a) for a in parameters(4)]
    _, cache = bnkit.batch_norm(backend.asarray(random(7, 4)), *small, train=False, reduce=never)
    bnkit.batch_norm_backward(backend.asarray(random(7, 4)), cache)


@pytest.mark.parametrize("cuts", [(4,), (1,), (0,), (9,), (3, 3)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"decay": None}, {"renorm": (1.5, 0.5)}, {"in_place": True}, {"statistics_dtype": "float64"}],
    ids=str,
)
def test_layers_on_uneven_ranks_are_one_layer(options: dict[str, Any], cuts: tuple[int, ...], backend: Backend) -> None:
    bounds, batches = [0, *cuts, 9], [random(9, 4, seed=s) for s in range(3)]

    def run(reduce: Any, rows: slice) -> dict[str, Any]:
        layer = bnkit.BatchNorm(4, reduce=reduce, dtype="float64", backend=backend, **options)
        found: dict[str, Any] = {"y": [], "dx": [], "dgamma": []}
        for x in batches:
            y, cache = layer.forward(backend.asarray(x[rows].copy()), train=True)
            dx, grads = layer.backward(backend.asarray(random(9, 4, seed=7)[rows]), cache)
            for name, array in (("y", y), ("dx", dx), ("dgamma", grads["gamma"])):
                found[name].append(backend.to_numpy(array).copy())
        state = {n: backend.to_numpy(a) if n != "count" else a for n, a in layer.state.items()}
        return {**{n: np.array(a) for n, a in found.items()}, **state}

    parts = on_ranks(len(bounds) - 1, lambda rank, reduce: run(reduce, slice(bounds[rank], bounds[rank + 1])))
    whole = run(None, slice(None))
    for name in ("y", "dx"):
        np.testing.assert_allclose(np.concatenate([p[name] for p in parts], axis=1), whole[name], **EXACT)
    np.testing.assert_allclose(sum(p["dgamma"] for p in parts), whole["dgamma"], **EXACT)
    for part in parts:
        for name in ("running_mean", "running_var", "count"):
            np.testing.assert_allclose(part[name], whole[name], **EXACT, err_msg=name)


def test_a_reduce_may_answer_in_one_buffer_each_time() -> None:
    """As MPI's Allreduce into memory that is kept."""
    x, dy, buffer = random(9, 4), random(9, 4, seed=1), np.empty((2, 1, 4))

    def reduce(part: Any) -> Any:
        np.multiply(part, 2, out=buffer)
        return buffer

    found = []
    for options, batch, doubled in (({"reduce": reduce}, x, dy), ({}, np.tile(x, (2, 1)), np.tile(dy, (2, 1)))):
        layer = bnkit.BatchNorm(4, dtype="float64", backend="numpy", **options)
        y, cache = layer.forward(batch, train=True)
        dx, _ = layer.backward(doubled, cache)
        again, _ = layer.backward(doubled, cache)
        found.append((y[:9], dx[:9], again[:9], layer.state["running_mean"], layer.state["running_var"]))
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, **EXACT)


def test_a_batch_that_is_empty_on_every_rank_is_not_counted(backend: Backend) -> None:
    layer = bnkit.BatchNorm(4, decay=None, reduce=lambda a: a * 2.0, backend=backend)
    layer.forward(backend.asarray(np.empty((0, 4), np.float32)), train=True)
    assert int(layer.state["count"]) == 0
    np.testing.assert_array_equal(backend.to_numpy(layer.state["running_mean"]), np.zeros(4))


def test_ghost_and_reduce_are_refused_when_the_layer_is_made() -> None:
    with pytest.raises(ValueError, match="ghost and reduce must not be given together"):
        bnkit.BatchNorm(4, ghost=2, reduce=lambda a: a, backend="numpy")
    with pytest.raises(TypeError, match="reduce must be a function"):
        bnkit.BatchNorm(4, reduce=3, backend="numpy")  # type: ignore[arg-type]


def test_a_copied_layer_reduces_too() -> None:
    layer = bnkit.BatchNorm(4, reduce=np.negative, backend="numpy")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.reduce is np.negative


def test_replicas_of_a_network_that_reduces_train_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that reduce in any order would add what does not belong together."""
    callers = set()

    def reduce(a: Any) -> Any:
        callers.add(threading.get_ident())
        return a

    monkeypatch.setattr("bnkit.nn.lockstep._WORTH_A_THREAD", 0)
    net = bnkit.MLP((6, 5, 3), replicas=4, backend="numpy")
    net.network.layers[1].reduce = reduce
    data = random(20, 6).astype(np.float32), np.zeros(20, np.int64)
    bnkit.fit(net, data, optimizer=bnkit.optim.SGD(), epochs=1, batch_size=10)
    assert callers == {threading.get_ident()}
