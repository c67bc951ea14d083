import math

import numpy as np
import pytest
from small_layers import KEY, check_gradients, draw, on

from bnkit import Dropout, get_backend


def kept(backend, key, shape=(40, 50), ratio=0.3) -> np.ndarray:
    ones = on(backend, np.ones(shape))
    return backend.to_numpy(Dropout(ratio).forward(ones, train=True, key=key)[0]) != 0


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(backend, ratio):
    x = draw(300, 200)
    y = backend.to_numpy(Dropout(ratio).forward(on(backend, x), train=True, key=KEY)[0])
    dropped = y == 0
    # The share of n independent draws scatters by √(p (1 - p) / n).
    assert dropped.mean() == pytest.approx(ratio, abs=5 * math.sqrt(ratio * (1 - ratio) / x.size))
    np.testing.assert_allclose(y[~dropped], x[~dropped] / (1 - ratio), rtol=1e-15)  # two roundings


def test_dropout_draws_each_row_and_column_for_itself(backend):
    mask = kept(backend, KEY, (400, 400))
    # The mean of 400 draws scatters by √(.21 / 400) = .023; six of those, for 800 means.
    for axis in (0, 1):
        np.testing.assert_allclose(mask.mean(axis), 0.7, rtol=0, atol=6 * 0.023)
    assert len(np.unique(mask, axis=0)) == len(np.unique(mask, axis=1)) == 400


def test_gradient_of_dropout_meets_central_differences(backend):
    check_gradients(backend, Dropout(0.4), draw(5, 4), key=KEY)


def test_dropout_mask_is_a_function_of_its_key_alone(backend):
    first = kept(backend, KEY)
    kept(backend, (9, 9, 9))  # a draw in between
    np.testing.assert_array_equal(kept(backend, KEY), first)
    values = Dropout(0.3).forward(on(backend, draw(40, 50)), train=True, key=KEY)[0]
    np.testing.assert_array_equal(backend.to_numpy(values) != 0, first)


@pytest.mark.parametrize("other", [(4, 0, 7), (3, 1, 7), (3, 0, 8)])
def test_dropout_mask_differs_by_seed_layer_and_step(backend, other):
    agree = (kept(backend, KEY) == kept(backend, other)).mean()
    # Independent masks agree with probability .7² + .3² = .58; the share of 2,000 scatters by .011.
    assert agree == pytest.approx(0.58, abs=5 * 0.011)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_is_the_same_on_every_backend(backend, dtype):
    x = draw(13, 17, dtype=dtype)
    ours, numpys = (Dropout(0.3).forward(on(b, x), train=True, key=KEY)[0] for b in (backend, get_backend("numpy")))
    assert backend.to_numpy(ours).tobytes() == numpys.tobytes()
    assert str(numpys.dtype) == dtype


def test_dropout_of_replicas_is_that_of_their_seeds(backend):
    x = draw(3, 13, 17)
    together = backend.to_numpy(Dropout(0.3).forward(on(backend, x), train=True, key=([5, 6, 5], 2, 1))[0])
    for r, seed in enumerate((5, 6, 5)):
        alone = Dropout(0.3).forward(on(backend, x[r]), train=True, key=(seed, 2, 1))[0]
        np.testing.assert_array_equal(together[r], backend.to_numpy(alone))


def test_dropout_is_the_identity_in_inference(backend):
    x = draw(7, 5)
    y, cache = Dropout(0.5).forward(on(backend, x), train=False)
    np.testing.assert_array_equal(backend.to_numpy(y), x)
    dx, _ = Dropout(0.5).backward(on(backend, x), cache)
    np.testing.assert_array_equal(backend.to_numpy(dx), x)


def test_dropout_of_ratio_zero_keeps_everything_and_needs_no_key(backend):
    x = draw(7, 5)
    y, _ = Dropout(0.0).forward(on(backend, x), train=True)
    np.testing.assert_array_equal(backend.to_numpy(y), x)


def test_dropout_needs_a_key_to_train(backend):
    with pytest.raises(ValueError, match="key must be"):
        Dropout(0.5).forward(on(backend, draw(7, 5)), train=True)


@pytest.mark.parametrize(
    ("ratio", "error"),
    [
        (1.0, ValueError),
        (-0.1, ValueError),
        (1.5, ValueError),
        (math.nan, ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_dropout_refuses_a_ratio_that_is_no_probability_below_one(ratio, error):
    with pytest.raises(error, match="ratio"):
        Dropout(ratio)
