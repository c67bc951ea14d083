"""`BatchNorm(reduce=…)`, batch norm over ranks that threads stand for: uneven and empty ones, and what is counted."""

import copy
import functools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Host = np.ndarray[Any, Any]
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}  # float64: a few roundings


def random(*shape: int, seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape)


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

    monkeypatch.setattr("bnkit.lockstep._WORTH_A_THREAD", 0)
    net = bnkit.MLP((6, 5, 3), replicas=4, backend="numpy")
    net.network.layers[1].reduce = reduce
    data = random(20, 6).astype(np.float32), np.zeros(20, np.int64)
    bnkit.fit(net, data, optimizer=bnkit.optim.SGD(), epochs=1, batch_size=10)
    assert callers == {threading.get_ident()}
