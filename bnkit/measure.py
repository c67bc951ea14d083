"""What to time and how: the benchmark's cases, the bytes an op must move, timing, and the copy bandwidth."""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from .backend import Backend

RESNET50 = ((64, 112), (256, 56), (64, 56), (512, 28), (128, 28), (1024, 14), (256, 14), (2048, 7), (512, 7))


class Case(NamedTuple):
    """An input of batch norm: its shape, and the axis of its parameters."""

    shape: tuple[int, ...]
    axis: int | tuple[int, ...]

    @property
    def name(self) -> str:
        layout = ("NCHW " if self.axis == 1 else "NHWC ") if len(self.shape) == 4 else ""
        return layout + "x".join(map(str, self.shape))


class Timing(NamedTuple):
    """Seconds a call: the median, and the quartiles as its spread."""

    median: float
    low: float
    high: float


def cases(*, resnet_batch: int = 50) -> list[Case]:
    """Small and large layers, images in both layouts, ResNet-50's nine batch norms, and replicas."""
    flat = [(100, 100), (128, 1024), (1024, 4096), (65536, 256), (3136, 256), (128, 8192)]
    images = [(32, 3, 224), (32, 64, 56), (64, 256, 14), (16, 512, 7)]
    images += [(resnet_batch, channels, size) for channels, size in RESNET50]
    result = [Case(shape, 1) for shape in flat]
    for n, c, size in images:
        result += [Case((n, c, size, size), 1), Case((n, size, size, c), -1)]
    return [*result, Case((16, 100, 100), (0, 2))]


# Reads and writes of the whole tensor: with one read of each input, and with the statistics read apart.
TRANSFERS = {"train": (2, 3), "inference": (2, 2), "backward": (3, 5)}


def bytes_moved(op: str, case: Case, itemsize: int, *, one_read: bool = True) -> int:
    """The bytes that `op` moves to and from memory at least, parameters left aside."""
    return TRANSFERS[op][0 if one_read else 1] * math.prod(case.shape) * itemsize


def time_calls(call: Callable[[], object], backend: Backend, *, seconds: float = 0.5, least: int = 5) -> Timing:
    """Time `call` with the device synchronized inside, after a warm-up; as many times as fit into `seconds`."""
    call()
    backend.synchronize()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        backend.synchronize()
        times.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(times, n=4)
    return Timing(median, low, high)


def copy_bandwidth(backend: Backend, *, nbytes: int = 256 * 2**20) -> float:
    """Bytes a second, read and written, of this backend's own copy of an array beyond every cache."""
    source = backend.uniform((0, 0, 0), (nbytes // 4,))
    target = backend.xp.zeros_like(source)

    def copy() -> None:
        target[...] = source

    return 2 * nbytes / time_calls(copy, backend).median
