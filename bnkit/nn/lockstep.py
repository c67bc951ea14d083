"""The division of replicas between threads: their number of multiplications, and the slices."""

import itertools
from collections.abc import Sequence

from bnkit.backend import Backend

_WORTH_A_THREAD = 2**24  # multiplications in a forward of all replicas; below this threads cost more than they save


def multiplications(sizes: Sequence[int], rows: int) -> int:
    """The multiplications of a forward of `rows` rows through a network of these sizes."""
    return rows * sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))


def cuts(backend: Backend, replicas: int, each: int) -> list[slice]:
    """A slice of the replicas for each task of `backend.run`; one slice if threads would not be faster.

    each: the multiplications of one replica.
    """
    parts = min(backend.threads, replicas) if each * replicas >= _WORTH_A_THREAD else 1
    return [slice(replicas * i // parts, replicas * (i + 1) // parts) for i in range(parts)]
