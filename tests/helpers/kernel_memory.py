"""Arrays that lie in memory in unusual ways, with NaN all around them, and child processes that compute the same."""

import os
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from places import HELPERS, ROOT

Array = np.ndarray[Any, Any]
GUARD = 128  # bytes before and after, more than the widest vector


class Memory(NamedTuple):
    """How an array lies: its axes from slowest to fastest, a step along each, and bytes before its first element."""

    order: tuple[int, ...]
    steps: tuple[int, ...]
    offset: int


class Placed(NamedTuple):
    array: Array
    buffer: Array  # bytes; those outside of the array are 0xFF, which is NaN in every float type


def memories(ndim: int, itemsize: int, *, whole: bool = False) -> st.SearchStrategy[Memory]:
    """`whole`: without gaps, and at a multiple of the itemsize, as ops take their arrays."""
    identity = tuple(range(ndim))
    channels_last = (0, *range(2, ndim), 1) if ndim > 2 else identity
    orders = st.sampled_from([identity, channels_last, identity[::-1]]) | st.permutations(identity).map(tuple)
    one = st.just((1,) * ndim)
    steps = one | st.tuples(*[st.sampled_from([1, 1, 1, 2, -1, -2, 3])] * ndim)
    offsets = [0, itemsize, 3 * itemsize, 5 * itemsize]
    if whole:
        return st.builds(Memory, st.just(identity), one, st.sampled_from(offsets))
    return st.builds(Memory, orders, one | steps, st.sampled_from([*offsets, 1, itemsize + 1]))


def place(values: Array, memory: Memory) -> Placed:
    """A copy of `values` that lies so."""
    order, steps, offset = memory
    dims = tuple(values.shape[a] * abs(steps[a]) for a in order)
    size = int(np.prod(dims)) * values.itemsize
    buffer = np.full(2 * GUARD + offset + size, 0xFF, np.uint8)
    block = np.ndarray(dims, values.dtype, buffer=buffer, offset=GUARD + offset)
    array = block.transpose(tuple(order.index(a) for a in range(values.ndim)))
    array = array[tuple(slice(None, None, step) for step in steps)]
    array[...] = values
    return Placed(array, buffer)


def place_nan(values: Array, memory: Memory) -> Placed:
    """Memory for a result like `values`, all of it 0xFF."""
    placed = place(values, memory)
    placed.buffer.fill(0xFF)
    return placed


def is_untouched_around(placed: Placed) -> bool:
    """Whether all bytes that are not of the array are still 0xFF."""
    array, buffer = placed
    written = array.copy()
    array[...] = np.frombuffer(b"\xff" * array.itemsize, array.dtype)[0]
    untouched = bool((buffer == 0xFF).all())
    array[...] = written
    return untouched


def start_child(code: str, **environment: str) -> "subprocess.Popen[str]":
    """A new Python that runs `code`, which can import the tests' modules."""
    code = "import sys; sys.path[:0] = sys.argv[1:]\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(HELPERS), str(ROOT / "tests" / "backends" / "cpu")],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told_by(process: "subprocess.Popen[str]") -> str:
    """What the child printed; it must end well, in time, and without a word on stderr."""
    try:
        told, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, f"exit status {process.returncode}: {errors}"
    assert errors == ""
    return told
