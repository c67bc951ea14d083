"""`BatchNorm(reuse=True)`: memory that is given up comes back, and no array that anybody still has is ever changed."""

import copy
import pickle
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit.backend import Backend

Array = np.ndarray[Any, Any]
SHAPE = (16, 64, 32, 32)  # 4 MiB in float32, where reuse begins
SIZE = 2**22


def make(**options: Any) -> bnkit.BatchNorm:
    return bnkit.BatchNorm(64, **{"backend": "numpy", "reuse": True, **options})


def draw(seed: int = 0, dtype: str = "float32", channels_last: bool = False) -> Array:
    a = np.random.default_rng(seed).standard_normal(SHAPE, np.float32).astype(dtype)
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if channels_last else a


def address(a: Array) -> int:
    return int(a.__array_interface__["data"][0])


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
def test_steps_that_give_up_their_results_stay_in_the_same_memory(channels_last: bool) -> None:
    layer, x, dy = make(), draw(0, channels_last=channels_last), draw(1, channels_last=channels_last)
    seen = []
    for _ in range(3):
        y, cache = layer.forward(x, train=True)
        dx, _ = layer.backward(dy, cache)
        seen.append((address(y), address(dx)))
        del y, dx, cache
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] != seen[0][1]


def test_a_step_allocates_nothing_large_once_the_layer_has_its_memory() -> None:
    layer, x, dy = make(activation="relu"), draw(0), draw(1)

    def step() -> None:
        layer.backward(dy, layer.forward(x, train=True)[1])

    step()
    tracemalloc.start()
    try:
        step()
        assert tracemalloc.get_traced_memory()[1] < SIZE // 10
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"affine": False}, {"track": False}, {"ghost": 5}, {"decay": None}],
    ids=str,
)
@pytest.mark.parametrize("extra", ["residual", "mask", None])
def test_values_are_those_of_new_arrays(options: dict[str, Any], extra: str | None) -> None:
    layer, plain = make(**options), make(**options, reuse=False)
    keywords: dict[str, Any] = {"residual": draw(3)} if extra == "residual" else {}
    keywords |= {"mask": np.arange(SHAPE[0]) % 3 > 0} if extra == "mask" else {}
    for seed, train in ((0, True), (1, True), (2, False)):
        x, dy = draw(seed), draw(seed + 5)
        y, cache = layer.forward(x, train=train, **keywords)
        want, wanted = plain.forward(x, train=train, **keywords)
        np.testing.assert_array_equal(y, want)
        got, expected = layer.backward(dy, cache), plain.backward(dy, wanted)
        np.testing.assert_array_equal(got[0], expected[0])
        for a, b in zip(got[2:], expected[2:], strict=True):
            np.testing.assert_array_equal(a, b)
        for name, gradient in expected[1].items():
            np.testing.assert_array_equal(got[1][name], gradient)


HOLDERS = {
    "the array": lambda a: a,
    "a view": lambda a: a[3:, 1],
    "a view of a view": lambda a: a.reshape(-1)[5:][::7],
    "a memoryview": memoryview,
    "an iterator": np.nditer,
    "a list": lambda a: [[a]],
    "an array over its buffer": lambda a: np.frombuffer(a, a.dtype),
    "DLPack": np.from_dlpack,
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("result", ["y", "dx"])
def test_what_anybody_still_has_is_left_alone(holder: str, result: str) -> None:
    layer, dy = make(), draw(9)
    y, cache = layer.forward(draw(0), train=True)
    dx, _ = layer.backward(dy, cache)
    chosen = y if result == "y" else dx
    before, at, held = chosen.copy(), address(chosen), HOLDERS[holder](chosen)
    del y, dx, chosen, cache
    for seed in range(1, 4):
        other, cache = layer.forward(draw(seed), train=seed < 3)
        taken = {address(other), address(layer.backward(dy, cache)[0])}
        assert at not in taken
    kept = np.ndarray(SHAPE, "float32", buffer=(np.ctypeslib.ctypes.c_char * SIZE).from_address(at))
    np.testing.assert_array_equal(kept, before)
    del held


def test_several_forwards_in_flight_keep_their_results_and_gradients() -> None:
    layer, plain, dy = make(), make(reuse=False), draw(9)
    first = [layer.forward(draw(seed), train=True) for seed in range(3)]
    wanted = [plain.forward(draw(seed), train=True) for seed in range(3)]
    gradients = [layer.backward(dy, cache)[0] for _, cache in first]
    for (y, _), dx, (want, cache) in zip(first, gradients, wanted, strict=True):
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(dx, plain.backward(dy, cache)[0])


def test_a_layer_may_take_its_own_results() -> None:
    found = []
    for reuse in (True, False):
        layer = make(reuse=reuse)
        x = draw(0)
        for _ in range(3):
            x, cache = layer.forward(x, train=True)
        found.append((x, layer.backward(x, cache)[0]))
    np.testing.assert_array_equal(found[0], found[1])


def test_an_out_of_the_callers_is_used_and_never_kept() -> None:
    layer, out = make(), np.empty(SHAPE, "float32")
    y, _ = layer.forward(draw(0), train=True, out=out)
    assert y is out
    before = y.copy()
    at = address(out)
    del y
    others = [layer.forward(draw(seed), train=True)[0] for seed in (1, 2)]
    assert at not in map(address, others)
    np.testing.assert_array_equal(out, before)


def test_threads_at_once_share_no_memory() -> None:
    layer, plain, wrong = make(track=False), make(track=False, reuse=False), []
    wanted = [plain.forward(draw(seed), train=True)[0] for seed in range(4)]

    def work(seed: int) -> None:
        x = draw(seed)
        wrong.extend(not np.array_equal(layer.forward(x, train=True)[0], wanted[seed]) for _ in range(10))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == [False] * 40


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_memory_of_its_own_and_goes_on_reusing(again: Any) -> None:
    layer, x = make(), draw(0)
    at = address(layer.forward(x, train=True)[0])
    twin = again(layer)
    own = {address(twin.forward(x, train=True)[0]) for _ in range(2)}
    assert len(own) == 1
    assert at not in own
    assert len(pickle.dumps(layer)) < 10_000


def test_memory_of_another_shape_is_let_go() -> None:
    layer = make()
    tracemalloc.start()
    try:
        for rows in (16, 32, 48, 64):
            x = np.ones((rows, *SHAPE[1:]), "float32")
            layer.forward(x, train=True)
            del x
        assert tracemalloc.get_traced_memory()[0] < 5 * SIZE  # the last result of 4
    finally:
        tracemalloc.stop()


def test_small_results_and_other_backends_get_new_arrays(backend: Backend) -> None:
    layer = bnkit.BatchNorm(5, backend=backend, reuse=True)
    x = backend.asarray(np.random.default_rng(0).normal(size=(7, 5)).astype("float32"))
    y, cache = layer.forward(x, train=True)
    dx, _ = layer.backward(x, cache)
    plain = bnkit.BatchNorm(5, backend=backend)
    want, wanted = plain.forward(x, train=True)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(want))
    np.testing.assert_array_equal(backend.to_numpy(dx), backend.to_numpy(plain.backward(x, wanted)[0]))


def test_a_wrong_reuse_or_cache_is_refused() -> None:
    with pytest.raises(TypeError, match="reuse"):
        make(reuse=1)
    with pytest.raises(TypeError, match="cache"):
        make().backward(draw(0), None)
