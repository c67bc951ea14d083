"""Philox: uniform numbers that are a function of their key and index alone."""

from typing import Any

from bnkit.reference.array import Array


def uniform(xp: Any, blocks: Array, key_words: tuple[Any, Any], counter_words: tuple[int, int, int]) -> Array:
    """Philox4x32-10: four float32 in [0, 1) for each counter `(block, *counter_words)`, on a new last axis.

    blocks: uint64 block numbers below 2**32; key_words: two 32-bit ints, or uint64 arrays that broadcast with blocks.
    The upper 24 bits of each word are the fraction. Source: Salmon et al. 2011, table 2.
    """
    low = 0xFFFFFFFF
    k0, k1 = key_words
    c0, c1, c2, c3 = (blocks + k0 * 0, *(blocks * 0 + k0 * 0 + word for word in counter_words))
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & low, (p0 >> 32) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    words = xp.stack([c0, c1, c2, c3], axis=-1)
    return xp.astype(words >> 8, xp.float32) * 2.0**-24
