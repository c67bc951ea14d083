"""When replicas are worth several threads: how many multiplications they take, and how they are cut between threads."""

import itertools
from collections.abc import Sequence

from bnkit.backend import Backend

_WORTH_A_THREAD = 2**24  # multiplications of all replicas, forward, below which threads cost more than they save


def multiplications(sizes: Sequence[int], rows: int) -> int:
    """How many multiplications a forward of `rows` rows takes in a network of these sizes."""
    return rows * sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))


def cuts(backend: Backend, replicas: int, each: int) -> list[slice]:
    """The replicas of each task for `backend.run`; a single task where several do not pay.

    each: how many multiplications a task takes for a replica.
    """
    parts = min(backend.threads, replicas) if each * replicas >= _WORTH_A_THREAD else 1
    return [slice(replicas * i // parts, replicas * (i + 1) // parts) for i in range(parts)]
