import itertools

import numpy as np

from bnkit.nn.init import PURPOSES, generator


def test_no_two_keys_share_a_stream():
    seeds = (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**64 - 1)
    keys = list(itertools.product(PURPOSES, seeds, (0, 1, 2, 2**32)))
    drawn = {generator(*key).integers(2**63, size=2).tobytes() for key in keys}
    assert len(drawn) == len(keys)


def test_a_key_gives_the_same_draws_again():
    first, second = (generator("weights", 7, 3).standard_normal(5) for _ in range(2))
    np.testing.assert_array_equal(first, second)
