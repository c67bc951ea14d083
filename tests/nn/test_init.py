import numpy as np
import pytest

from bnkit import MLP, Linear
from bnkit.backend import Backend
from bnkit.nn.init import standard_deviation

INPUTS, OUTPUTS = 200, 300
# A sample standard deviation of N normal values scatters by 1/√(2N) of itself; here N = 60,000, and five of those.
SPREAD = 5 / np.sqrt(2 * INPUTS * OUTPUTS)


def weights(backend: Backend, **options) -> np.ndarray:
    layer = Linear(INPUTS, OUTPUTS, backend=backend, dtype="float64", **options)
    return backend.to_numpy(layer.params["weight"])


@pytest.mark.parametrize(
    ("init", "expected"),
    [("he", np.sqrt(2 / INPUTS)), ("xavier", np.sqrt(1 / INPUTS)), (0.01, 0.01), (np.float32(0.5), 0.5)],
)
def test_weights_have_the_standard_deviation_of_their_init(backend, init, expected):
    assert weights(backend, init=init).std() == pytest.approx(expected, rel=SPREAD)


def test_weights_are_normal_around_zero(backend):
    w = weights(backend, init=1.0)
    n = w.size
    assert abs(w.mean()) < 5 / np.sqrt(n)  # the mean of n scatters by 1/√n
    assert np.mean(w**4) == pytest.approx(3, abs=5 * np.sqrt(96 / n))  # w⁴ has mean 3 and variance 105 - 9
    assert abs(np.mean(w**3)) < 5 * np.sqrt(15 / n)  # w³ has variance 15


def test_init_zero_gives_weights_of_zero(backend):
    assert not weights(backend, init=0.0).any()


def test_bias_starts_at_zero(backend):
    assert not backend.to_numpy(Linear(3, 5, backend=backend).params["bias"]).any()
    assert not backend.to_numpy(Linear(3, 5, replicas=2, backend=backend).params["bias"]).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_is_the_same_weights_on_every_backend(backend, dtype):
    ours, numpys = (Linear(7, 11, seed=3, layer=2, dtype=dtype, backend=b).params["weight"] for b in (backend, "numpy"))
    assert backend.to_numpy(ours).tobytes() == numpys.tobytes()
    assert numpys.dtype == dtype


def test_float32_weights_are_the_float64_ones_rounded(backend):
    wide, narrow = (
        backend.to_numpy(Linear(7, 11, seed=3, dtype=dtype, backend=backend).params["weight"])
        for dtype in ("float64", "float32")
    )
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


@pytest.mark.parametrize("other", [{"seed": 1}, {"layer": 1}, {"seed": 1, "layer": 1}])
def test_another_seed_or_layer_has_unrelated_weights(backend, other):
    a, b = weights(backend, init=1.0), weights(backend, init=1.0, **other)
    # The correlation of n independent pairs scatters by 1/√n.
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


def test_the_scale_multiplies_one_and_the_same_draw(backend):
    # Two roundings apart: of the product, and of the scale.
    np.testing.assert_allclose(weights(backend, init=0.25), 0.25 * weights(backend, init=1.0), rtol=1e-15)


def test_each_replica_has_the_weights_of_its_seed_and_init(backend):
    inits, seeds = ["he", 0.01, "xavier"], [4, 5, 4]
    together = weights(backend, replicas=3, init=inits, seed=seeds)
    assert together.shape == (3, INPUTS, OUTPUTS)
    for r in range(3):
        np.testing.assert_array_equal(together[r], weights(backend, init=inits[r], seed=seeds[r]))


def test_one_init_and_one_seed_serve_all_replicas(backend):
    together = weights(backend, replicas=2, init="xavier", seed=6)
    for r in range(2):
        np.testing.assert_array_equal(together[r], weights(backend, init="xavier", seed=6))


def test_inits_and_seeds_may_come_as_numpy_arrays(backend):
    together = weights(backend, replicas=2, init=np.array([0.1, 0.2]), seed=np.arange(2))
    np.testing.assert_array_equal(together, weights(backend, replicas=2, init=[0.1, 0.2], seed=[0, 1]))


def test_layers_of_one_network_have_different_weights(backend):
    model = MLP((6, 6, 6, 6), batch_norm=False, init=1.0, backend=backend)
    drawn = [backend.to_numpy(p) for name, p in model.params.items() if name.endswith("weight")]
    assert len({w.tobytes() for w in drawn}) == 3


@pytest.mark.parametrize(
    ("init", "expected"), [("he", np.sqrt(2 / 50)), ("xavier", np.sqrt(1 / 50)), (0, 0.0), (2, 2.0)]
)
def test_standard_deviation_follows_the_fan_in(init, expected):
    found = standard_deviation(init, 50)
    assert type(found) is float
    assert found == pytest.approx(expected, rel=1e-15)  # one rounding


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"init": "kaiming"}, ValueError, "init.*kaiming"),
        ({"init": -0.1}, ValueError, "init.*-0.1"),
        ({"init": float("nan")}, ValueError, "init.*nan"),
        ({"init": float("inf")}, ValueError, "init.*inf"),
        ({"init": True}, TypeError, "init.*True"),
        ({"init": None}, TypeError, "init.*None"),
        ({"init": [0.1, 0.2]}, ValueError, "init.*replicas"),
        ({"init": [0.1, 0.2], "replicas": 3}, ValueError, "init.*3 replicas.*2"),
        ({"seed": -1}, ValueError, "seed.*-1"),
        ({"seed": 1.5}, TypeError, "seed.*1.5"),
        ({"seed": None}, TypeError, "seed.*None"),
        ({"seed": [0, -1], "replicas": 2}, ValueError, "seed.*-1"),
        ({"seed": [0, 1]}, ValueError, "seed.*replicas"),
        ({"seed": range(3), "replicas": 2}, ValueError, "seed.*2 replicas.*3"),
    ],
)
def test_an_init_or_seed_that_cannot_be_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        Linear(3, 2, backend="numpy", **options)
