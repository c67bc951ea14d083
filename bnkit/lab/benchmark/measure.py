"""What to time and how: the benchmark's cases and ops, the bytes an op must move, timing, and the copy bandwidth."""

import contextlib
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bnkit.backend import Backend
from bnkit.backend.checks import check_choice

__all__ = [
    "LAYOUTS",
    "OPS",
    "UPDATED",
    "UPDATES",
    "Case",
    "Op",
    "Timing",
    "Update",
    "bytes_moved",
    "caches",
    "cases",
    "copy_bandwidth",
    "host_caches",
    "host_seconds",
    "product_rate",
    "sample",
    "summarize",
    "time_calls",
]

RESNET50 = ((64, 112), (256, 56), (64, 56), (512, 28), (128, 28), (1024, 14), (256, 14), (2048, 7), (512, 7))
LAYOUTS = ("flat", "NCHW", "NHWC", "replicas")


class Case(NamedTuple):
    """An input of batch norm: its shape, and the axis of its parameters."""

    shape: tuple[int, ...]
    axis: int | tuple[int, ...]

    @property
    def layout(self) -> str:
        if len(self.shape) == 4:
            return "NCHW" if self.axis == 1 else "NHWC"
        return "flat" if len(self.shape) == 2 else "replicas"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        prefix = f"{self.layout} " if len(self.shape) == 4 else ""
        return prefix + "x".join(map(str, self.shape))


class Op(NamedTuple):
    """A benchmark's op: what is called with which options, and how often it must pass over the whole tensor.

    one_read, two_reads: reads and writes of a tensor, with one read of each input and with the statistics read apart.
    """

    kind: str  # "train", "inference" or "backward"
    one_read: int
    two_reads: int
    relu: bool = False
    residual: bool = False


OPS = {
    "train": Op("train", 2, 3),
    "train-relu": Op("train", 2, 3, relu=True),
    "train-residual-relu": Op("train", 3, 4, relu=True, residual=True),
    "inference": Op("inference", 2, 2),
    "backward": Op("backward", 3, 5),
    "backward-relu": Op("backward", 3, 5, relu=True),
    "backward-residual-relu": Op("backward", 4, 6, relu=True, residual=True),
}


class Update(NamedTuple):
    """A benchmark's step of an optimizer over as many parameters as a case has elements."""

    rule: str
    decays: tuple[float, ...]  # one for each array that the rule remembers

    @property
    def transfers(self) -> int:
        """Reads and writes of an array: the gradient's, and two of each that is moved in place."""
        return 1 + 2 * (1 + len(self.decays))


UPDATES = {
    "sgd-step": Update("sgd", ()),
    "momentum-step": Update("momentum", (0.9,)),
    "adam-step": Update("adam", (0.9, 0.999)),
}
UPDATED = ("float32", "float64")  # the dtypes of parameters

SHORTEST = 1e-4  # seconds between two readings of the clock


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


def bytes_moved(op: str, case: Case, itemsize: int, *, one_read: bool = True) -> int:
    """The bytes that `op` moves to and from memory at least, parameters left aside.

    Behind a residual the ReLU cannot tell its sign from x, and keeps one bit an element.
    """
    check_choice("op", op, (*OPS, *UPDATES))
    if op in UPDATES:
        return UPDATES[op].transfers * case.elements * itemsize
    chosen, elements = OPS[op], case.elements
    bits = -(-elements // 8) if chosen.relu and chosen.residual else 0
    return (chosen.one_read if one_read else chosen.two_reads) * elements * itemsize + bits


def host_seconds(call: Callable[[], object], repeat: int) -> float:
    """Seconds that `repeat` calls take by the host's clock."""
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return time.perf_counter() - start


def sample(
    call: Callable[[], object],
    elapsed: Callable[[Callable[[], object], int], float] = host_seconds,
    *,
    seconds: float,
    least: int = 3,
    warm_up: bool = True,
) -> list[float]:
    """Seconds a call, measured after a warm-up call as often as fits into `seconds`, and at least so often.

    elapsed: the clock, such as `Backend.elapsed`. Shorter calls than 0.1 ms are timed several in a row, since reading
    the clock takes its time too; a number is then their mean.
    """
    if warm_up:
        call()
    until = time.perf_counter() + seconds
    once = elapsed(call, 1)
    repeat = math.ceil(SHORTEST / max(once, 1e-9))
    times = [once] if repeat == 1 else []
    while len(times) < least or time.perf_counter() < until:
        times.append(elapsed(call, repeat) / repeat)
    return times


def summarize(times: Sequence[float]) -> Timing:
    """The median and the quartiles of some samples."""
    if len(times) == 1:
        return Timing(times[0], times[0], times[0])
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)


def time_calls(call: Callable[[], object], backend: Backend, *, seconds: float = 0.5, least: int = 5) -> Timing:
    """The time of `call` by the backend's own clock, waited for."""
    return summarize(sample(call, backend.elapsed, seconds=seconds, least=least))


def copy_bandwidth(backend: Backend, *, nbytes: int | None = None, seconds: float = 0.5) -> float:
    """Bytes a second, read and written, that copying an array takes with all the threads that the kernels use.

    nbytes: of the array; by default 256 MiB for each of up to four threads, or four times the largest cache.
    """
    threads = backend.details().get("threads") or 1  # a device has none, and its own copy is one call
    if nbytes is None:
        # glibc stores past the cache only from a size that it guesses from the caches: 240 MiB were seen on a virtual
        # machine of 32 MiB, and below it a copy had 27 GB/s where it had 46 above.
        nbytes = max(min(threads, 4) * 256 * 2**20, 4 * max(caches(backend).values(), default=0))
    source = backend.asarray(np.ones(nbytes // 4, np.float32))
    target = backend.xp.zeros_like(source)
    bounds = [source.shape[0] * i // threads for i in range(threads + 1)]
    parts = [slice(a, b) for a, b in itertools.pairwise(bounds)]

    def copy(part: slice) -> None:  # NumPy lets other threads run meanwhile
        target[part] = source[part]

    if threads == 1:
        return 2 * nbytes / time_calls(lambda: copy(parts[0]), backend, seconds=seconds).median
    with ThreadPoolExecutor(threads) as pool:
        return 2 * nbytes / time_calls(lambda: list(pool.map(copy, parts)), backend, seconds=seconds).median


def product_rate(backend: Backend, *, size: int = 2048, seconds: float = 0.5) -> float:
    """Additions and multiplications a second in float32 products of size x size matrices, one on each thread."""
    a, b = (backend.asarray(np.full((size, size), value, np.float32)) for value in (0.5, 2))
    products = [lambda: backend.xp.matmul(a, b)] * backend.threads
    median = time_calls(lambda: backend.run(products), backend, seconds=seconds, least=3).median
    return 2 * size**3 * backend.threads / median


def caches(backend: Backend) -> dict[str, int]:
    """The caches' sizes in bytes by name, of one core or shared, smallest first; empty where nobody tells."""
    told: dict[str, int] | None = backend.details().get("caches")
    if told is not None:
        return told
    return host_caches() if backend.array_module == "numpy" and sys.platform == "linux" else {}


def host_caches() -> dict[str, int]:
    """Linux's account of the first CPU's data caches."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError, ValueError):
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction" and size.endswith("K"):
                found[f"L{level}"] = int(size[:-1]) * 1024
    return found


def __dir__() -> list[str]:
    return list(__all__)
