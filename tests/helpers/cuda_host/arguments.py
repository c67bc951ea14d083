"""What is passed to a kernel: checked against its signature, and arrays copied to where a write beside them is seen."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

GUARD = 4096  # bytes on each side of an array
# A NaN in every floating type, and not what an array of NaN is full of.
_PATTERN = np.tile(np.frombuffer(b"\xf1\x7f", np.uint8), GUARD // 2)
ALIGNMENT = 256  # of what CUDA allocates; a staged array keeps its address modulo this


class Staged(NamedTuple):
    """A copy of the memory of one array, or of several that overlap, between guards."""

    start: int  # the address of the original
    size: int
    buffer: np.ndarray
    at: int  # where the copy starts in the buffer
    writeable: bool
    argument: int  # the first one whose memory it is

    @property
    def address(self) -> int:
        return self.buffer.ctypes.data + self.at

    def damaged(self) -> str:
        """On which side of it something was written; empty where nothing was."""
        before, after = self.buffer[self.at - GUARD : self.at], self.buffer[self.at + self.size :][:GUARD]
        sides = [side for side, guard in (("before", before), ("behind", after)) if (guard != _PATTERN).any()]
        return " and ".join(sides)


def check(kernel: str, signature: Sequence[str], arguments: Sequence[Any]) -> None:
    """TypeError where the device would read other bytes than were meant: CuPy passes whatever it is given."""
    if len(arguments) != len(signature):
        raise TypeError(f"{kernel}: the kernel takes {len(signature)} arguments, got {len(arguments)}")
    for i, (expected, value) in enumerate(zip(signature, arguments)):
        if expected.startswith("*"):
            good = value is None or (isinstance(value, np.ndarray) and _points(expected[1:], value.dtype))
        elif expected == "bf":
            good = isinstance(value, np.generic) and value.dtype.name == "bfloat16"
        else:
            good = isinstance(value, np.generic) and _same(expected, value.dtype)
        if not good:
            given = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"{kernel}: argument {i} must be {_described(expected)}, got {given}")


def stage(arguments: Sequence[Any]) -> list[Staged]:
    """A guarded copy of the memory of each array, one for those that overlap."""
    arrays = [(i, a) for i, a in enumerate(arguments) if isinstance(a, np.ndarray) and a.size]
    spans = sorted((*np.lib.array_utils.byte_bounds(a), a.flags.writeable, i) for i, a in arrays)
    merged: list[list[Any]] = []
    for low, high, writeable, i in spans:
        if merged and low < merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], high)
            merged[-1][2] |= writeable
            merged[-1][3] = min(merged[-1][3], i)
        else:
            merged.append([low, high, writeable, i])
    return [_staged(low, high - low, writeable, i) for low, high, writeable, i in merged]


def address(array: np.ndarray, staged: Sequence[Staged]) -> int:
    """Where the kernel finds the array's first element."""
    start = array.ctypes.data
    for copy in staged:
        if copy.start <= start < copy.start + copy.size:
            return copy.address + start - copy.start
    return 0  # it has no elements


def put_back(staged: Sequence[Staged]) -> None:
    for copy in staged:
        if copy.writeable:
            _bytes_at(copy.start, copy.size)[:] = copy.buffer[copy.at : copy.at + copy.size]


def _staged(start: int, size: int, writeable: bool, argument: int) -> Staged:
    buffer = np.empty(size + 2 * GUARD + ALIGNMENT, np.uint8)
    at = GUARD + (start - buffer.ctypes.data - GUARD) % ALIGNMENT
    buffer[at - GUARD : at] = _PATTERN
    buffer[at : at + size] = _bytes_at(start, size)
    buffer[at + size : at + size + GUARD] = _PATTERN
    return Staged(start, size, buffer, at, writeable, argument)


def _bytes_at(start: int, size: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_ubyte * size).from_address(start), np.uint8)


def _same(expected: str, dtype: np.dtype[Any]) -> bool:
    kinds = "iu" if expected[0] in "iu" else expected[0]
    return dtype.kind in kinds and dtype.itemsize == int(expected[1:]) and dtype.name != "bfloat16"


def _points(expected: str, dtype: np.dtype[Any]) -> bool:
    if expected in ("", "u1") or expected.startswith(("V", "*")):  # bytes, or vectors of what the array holds
        return True
    return dtype.name in ("bfloat16", "uint16") if expected == "bf" else _same(expected, dtype)


def _described(expected: str) -> str:
    prefix, name = ("None or an array of ", expected[1:]) if expected.startswith("*") else ("a scalar of ", expected)
    if name == "bf":
        return prefix + "bfloat16"
    return prefix + (np.dtype(name).name if name[:1] in tuple("fiub") else name or "anything")
