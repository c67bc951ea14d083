"""What every layer keeps."""

import copy
import pickle

import numpy as np
import pytest
from small_layers import KEY, draw, host_params, linear, network, on

from bnkit import BatchNorm, Dropout, Linear, ReLU, Sequential, Sigmoid, Tanh, batch_norm

LAYERS = {
    "linear": (linear, (7, 5)),
    "replicas": (lambda b: linear(b, replicas=2), (2, 7, 5)),
    "relu": (lambda b: ReLU(), (7, 5)),
    "sigmoid": (lambda b: Sigmoid(), (7, 5)),
    "tanh": (lambda b: Tanh(), (7, 5)),
    "dropout": (lambda b: Dropout(0.5), (7, 5)),
    "network": (network, (7, 5)),
}


@pytest.fixture(params=LAYERS)
def layer_and_shape(request, backend):
    make, shape = LAYERS[request.param]
    return make(backend), shape


def test_inputs_are_left_untouched(backend, layer_and_shape):
    layer, shape = layer_and_shape
    host = draw(*shape)
    x = on(backend, host)
    y, cache = layer.forward(x, train=True, key=KEY)
    host_dy = draw(*y.shape, seed=1)
    dy = on(backend, host_dy)
    layer.backward(dy, cache)
    layer.forward(x, train=False)
    np.testing.assert_array_equal(backend.to_numpy(x), host)
    np.testing.assert_array_equal(backend.to_numpy(dy), host_dy)


def test_params_are_left_untouched_by_forward_and_backward(backend, layer_and_shape):
    layer, shape = layer_and_shape
    before = host_params(backend, layer)
    y, cache = layer.forward(on(backend, draw(*shape)), train=True, key=KEY)
    layer.backward(y, cache)
    for name, p in host_params(backend, layer).items():
        np.testing.assert_array_equal(p, before[name])


def test_two_forwards_may_be_in_flight(backend, layer_and_shape):
    layer, shape = layer_and_shape
    xs = [on(backend, draw(*shape, seed=s)) for s in (0, 1)]
    alone = []
    for x in xs:
        y, cache = layer.forward(x, train=True, key=KEY)
        alone.append(layer.backward(y, cache))
    together = [layer.forward(x, train=True, key=KEY) for x in xs]
    for (y, cache), (dx, grads) in zip(together, alone, strict=True):
        for _ in range(2):  # a cache serves any number of backwards
            again, grads_again = layer.backward(y, cache)
            np.testing.assert_array_equal(backend.to_numpy(again), backend.to_numpy(dx))
            for name in grads:
                np.testing.assert_array_equal(backend.to_numpy(grads_again[name]), backend.to_numpy(grads[name]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_does_the_same_and_shares_no_array(backend, layer_and_shape, copied):
    layer, shape = layer_and_shape
    x = on(backend, draw(*shape))
    layer.forward(x, train=True, key=KEY)
    twin = copied(layer)
    arrays, copies = {**layer.params, **layer.state}, {**twin.params, **twin.state}
    before = {name: backend.to_numpy(a).tobytes() for name, a in arrays.items()}
    assert {name: backend.to_numpy(a).tobytes() for name, a in copies.items()} == before
    y, expected = (net.forward(x, train=False)[0] for net in (twin, layer))
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))
    for a in copies.values():
        a[...] = a + 1
    assert {name: backend.to_numpy(a).tobytes() for name, a in {**layer.params, **layer.state}.items()} == before


@pytest.mark.parametrize("layer", [ReLU(), Sigmoid(), Tanh(), Dropout(0.5)])
def test_a_list_is_refused(layer):
    with pytest.raises(TypeError, match="list"):
        layer.forward([[1.0, -1.0]], train=True, key=KEY)


NORM_OPTIONS = {
    "axis": -1,
    "decay": None,
    "eps": 1e-3,
    "correction": 0,
    "affine": False,
    "activation": "relu",
    "ghost": 4,
    "dtype": "float16",
    "statistics_dtype": "float64",
}


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Linear(7, 3, backend="numpy"), "Linear(7, 3)"),
        (
            Linear(7, 3, bias=False, replicas=2, seed=5, dtype="float64", backend="numpy"),
            "Linear(7, 3, bias=False, replicas=2, dtype='float64')",
        ),
        (ReLU(), "ReLU()"),
        (Sigmoid(), "Sigmoid()"),
        (Tanh(), "Tanh()"),
        (Dropout(), "Dropout(0.5)"),
        (BatchNorm(100, backend="numpy"), "BatchNorm(100)"),
        (BatchNorm((2, 3), axis=(1, 2), track=False, backend="numpy"), "BatchNorm((2, 3), axis=(1, 2), track=False)"),
        (
            BatchNorm(5, backend="numpy", **NORM_OPTIONS),
            f"BatchNorm(5, {', '.join(f'{k}={v!r}' for k, v in NORM_OPTIONS.items())})",
        ),
        (
            BatchNorm(5, renorm=(3.0, 5.0), reuse=True, dtype="float64", backend="numpy"),
            "BatchNorm(5, renorm=(3.0, 5.0), reuse=True, dtype='float64')",
        ),
        (Sequential(Linear(7, 3, backend="numpy"), Sequential(ReLU())), "Sequential(Linear(7, 3), Sequential(ReLU()))"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_is_shown_as_the_call_that_makes_it(layer, text):
    assert repr(layer) == text


def test_a_frozen_layer_is_shown_with_its_parameters():
    layer = BatchNorm(5, backend="numpy")
    layer.freeze()
    assert repr(layer) == "BatchNorm(5)"


def test_a_subclass_is_shown_by_its_name():
    class Narrow(BatchNorm):
        def __init__(self):
            super().__init__(3, backend="numpy")

    class Shifted(ReLU):
        pass

    assert repr(Sequential(Narrow(), Shifted())) == "Sequential(Narrow(3), Shifted())"


def test_a_cache_is_shown_in_one_line_without_its_arrays(backend):
    x = on(backend, draw(32, 16, 2, 2))
    assert (
        repr(batch_norm(x, None, None, train=True)[1]) == f"<BatchNormCache of float64 (32, 16, 2, 2) on {backend.key}>"
    )
