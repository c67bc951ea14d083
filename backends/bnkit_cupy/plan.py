"""How a view is cut into blocks, and whether a kernel reads it once or twice: of shapes and the device's limits.

The cost rule. A kernel that keeps its elements in registers reads them once: it is taken where the rows of every tile
fit into one block, or where all blocks of the grid are resident together, one a multiprocessor, and the device launches
them so (cooperative). All else is read twice, by about `_WAVES` blocks for each multiprocessor, or one for each tile.
"""

from typing import NamedTuple

THREADS = 256  # of a block
WARP = 32
# Vectors of x, and in the backward as many of dy, that a thread holds, by elements of a vector; more of them spill.
HELD = {"train": {1: 16, 2: 16, 4: 16, 8: 8}, "backward": {1: 8, 2: 8, 4: 8, 8: 4}}
_VECTOR_BYTES = 16
_BATCH = 4  # positions of each thread: a part has a multiple of them
_WAVES = 4  # blocks for each multiprocessor where the tiles have to be cut


class Limits(NamedTuple):
    """What a device can do: the numbers that decide which kernel runs, and how many blocks of it."""

    multiprocessors: int
    cooperative: bool  # whether it launches grids whose blocks wait for each other


class Geometry(NamedTuple):
    """The tiles of a view; kernels/tile.cuh says what they are."""

    runs: bool
    vector: int  # elements
    columns: int  # threads side by side
    height: int  # threads one behind the other
    tiles: int
    positions: int  # of a tile

    @property
    def flag_words(self) -> tuple[int, int, int]:
        """The shape of the words of the ReLU's bits: one for each tile, warp's walk and element of a vector."""
        return self.tiles, -(-self.positions * self.columns // WARP), self.vector


class Plan(NamedTuple):
    geometry: Geometry
    splits: int  # blocks of a tile
    chunk: int  # positions of a block

    @property
    def blocks(self) -> int:
        return self.geometry.tiles * self.splits


def geometry_of(shape: tuple[int, ...], itemsize: int) -> Geometry:
    groups, rows, channels, inner = shape
    runs = inner > 1
    vector = vector_of(inner if runs else channels, itemsize)
    if runs:
        return Geometry(True, vector, 1, THREADS, groups * channels, rows * (inner // vector))
    widest = 8 if vector > 1 else WARP  # 128 bytes, or 32 elements
    columns = min(widest, 1 << (-(-channels // vector) - 1).bit_length())
    return Geometry(False, vector, columns, THREADS // columns, groups * -(-channels // (columns * vector)), rows)


def vector_of(length: int, itemsize: int) -> int:
    """Elements that a thread takes together of lines of this length: 16 bytes where they divide it, else one."""
    full = _VECTOR_BYTES // itemsize
    return 1 if length % full else full


def one_read(kernel: str, geometry: Geometry, limits: Limits) -> Plan | None:
    """The plan of "train" or "backward"; None where the view has to be read twice."""
    chunk = geometry.height * HELD[kernel][geometry.vector]
    plan = Plan(geometry, -(-geometry.positions // chunk), chunk)
    together = limits.cooperative and plan.blocks <= limits.multiprocessors
    return plan if plan.splits == 1 or together else None


def two_reads(geometry: Geometry, limits: Limits) -> Plan:
    unit = geometry.height * _BATCH
    wanted = -(-limits.multiprocessors * _WAVES // geometry.tiles)
    splits = max(min(wanted, geometry.positions // unit), 1)
    chunk = -(-geometry.positions // (splits * unit)) * unit
    return Plan(geometry, -(-geometry.positions // chunk), chunk)
