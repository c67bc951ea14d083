"""How a view is cut into blocks, and whether a kernel reads it once or twice: of shapes and the device's limits.

The cost rule. A kernel that keeps its elements on the chip reads them once. In registers alone they are kept where the
rows of every tile fit into one block, or where all blocks of the grid are resident together, one a multiprocessor, and
the device launches them so (cooperative). Where shared memory holds what registers do not, a multiprocessor is taken to
have one block at a time. That is worth the saved reads only where as large a share of the multiprocessors is busy as
is left of the transfers: 2 of 3 in a forward, 3 of 5 in a backward. All else is read twice, by about `_WAVES` blocks
for each multiprocessor, or one for each tile.
"""

from typing import NamedTuple

THREADS = 256  # of a block
WARP = 32
# Vectors of x, and in the backward as many of dy, that a thread holds in registers, by elements of a vector; more
# spill, or of single elements would leave a multiprocessor registers for one block only.
HELD = {"train": {1: 8, 2: 16, 4: 16, 8: 8}, "backward": {1: 8, 2: 8, 4: 8, 8: 4}}
# Arrays that such a kernel keeps, and its transfers, read once and read twice.
_ARRAYS = {"train": 1, "backward": 2}
_TRANSFERS = {"train": (2, 3), "backward": (3, 5)}
# Of shared memory, what these kernels take for themselves (kernels/registers.json), rounded up.
OWN_SHARED = 24 * 1024
_VECTOR_BYTES = 16
_BATCH = 4  # positions of each thread: a part has a multiple of them
_WAVES = 4  # blocks for each multiprocessor where the tiles have to be cut


class Limits(NamedTuple):
    """What a device can do: the numbers that decide which kernel runs, and how many blocks of it."""

    multiprocessors: int
    cooperative: bool  # whether it launches grids whose blocks wait for each other
    shared: int  # bytes of shared memory that a block may have where it asks for them


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
    shared: int = 0  # bytes of shared memory of a block, past those that the kernel has anyway

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


def one_read(kernel: str, geometry: Geometry, limits: Limits, itemsize: int) -> Plan | None:
    """The plan of "train" or "backward"; None where the view has to be read twice."""
    held = HELD[kernel][geometry.vector]
    steps = -(-geometry.positions // geometry.height)  # vectors of a thread, had the tile one block
    resident = limits.multiprocessors // geometry.tiles if limits.cooperative else 0
    each = max(-(-steps // max(resident, 1)), min(steps, held))
    size = max(each - held, 0) * THREADS * _ARRAYS[kernel] * itemsize * geometry.vector
    plan = Plan(geometry, -(-steps // each), each * geometry.height, size)
    if size == 0:
        return plan
    waves = -(-plan.blocks // limits.multiprocessors)
    once, twice = _TRANSFERS[kernel]
    busy = plan.blocks * twice >= waves * limits.multiprocessors * once
    return plan if size <= limits.shared - OWN_SHARED and busy else None


def two_reads(geometry: Geometry, limits: Limits) -> Plan:
    unit = geometry.height * _BATCH
    wanted = -(-limits.multiprocessors * _WAVES // geometry.tiles)
    splits = max(min(wanted, geometry.positions // unit), 1)
    chunk = -(-geometry.positions // (splits * unit)) * unit
    return Plan(geometry, -(-geometry.positions // chunk), chunk)
