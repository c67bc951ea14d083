"""The benchmark's cases and ops, the bytes that an op must move, timing, and the copy bandwidth."""

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

__all__ = ["LAYOUTS", "OPS", "UPDATED", "UPDATES", "Case", "Op", "Timing", "Update", "bytes_moved"]
__all__ += ["caches", "cases", "copy_bandwidth", "host_caches", "host_seconds", "product_rate", "sample"]
__all__ += ["summarize", "time_calls"]

RESNET50 = ((64, 112), (256, 56), (64, 56), (512, 28), (128, 28), (1024, 14), (256, 14), (2048, 7), (512, 7))
LAYOUTS = ("flat", "NCHW", "NHWC", "replicas")


class Case(NamedTuple):
    """An input of batch norm: its shape, and the axis that its parameters follow.

    >>> bnkit.measure.Case((32, 64, 56, 56), 1).name
    'NCHW 32x64x56x56'
    """

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
    """An op of the benchmark: its kind, its options, and how many tensors it must read or write.

    one_read: the count if each input is read once. two_reads: the count if the statistics take another read.
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
    """An optimizer step of the benchmark, with one parameter for each element of the case."""

    rule: str
    decays: tuple[float, ...]  # one for each array of the rule's state

    @property
    def transfers(self) -> int:
        """Arrays read or written: the gradient once, the parameters and each state array twice."""
        return 1 + 2 * (1 + len(self.decays))


UPDATES = {
    "sgd-step": Update("sgd", ()),
    "momentum-step": Update("momentum", (0.9,)),
    "adam-step": Update("adam", (0.9, 0.999)),
}
UPDATED = ("float32", "float64")  # the dtypes that parameters have

SHORTEST = 1e-4  # seconds: the least time between two readings of the clock


class Timing(NamedTuple):
    """The median and the two quartiles of a call's time, in seconds."""

    median: float
    low: float
    high: float


def cases(*, resnet_batch: int = 50) -> list[Case]:
    """Small and large layers, images in both layouts, the nine batch norms of ResNet-50, and replicas."""
    flat = [(100, 100), (128, 1024), (1024, 4096), (65536, 256), (3136, 256), (128, 8192)]
    images = [(32, 3, 224), (32, 64, 56), (64, 256, 14), (16, 512, 7)]
    images += [(resnet_batch, channels, size) for channels, size in RESNET50]
    result = [Case(shape, 1) for shape in flat]
    for n, c, size in images:
        result += [Case((n, c, size, size), 1), Case((n, size, size, c), -1)]
    return [*result, Case((16, 100, 100), (0, 2))]


def bytes_moved(op: str, case: Case, itemsize: int, *, one_read: bool = True) -> int:
    """The least bytes that `op` reads and writes; the small arrays of parameters and statistics do not count.

    With a residual, x does not show where the ReLU was active, so the op keeps one bit for each element.

        >>> bnkit.measure.bytes_moved("train", bnkit.measure.Case((100, 100), 1), itemsize=4)
        80000
    """
    check_choice("op", op, (*OPS, *UPDATES))
    if op in UPDATES:
        return UPDATES[op].transfers * case.elements * itemsize
    chosen, elements = OPS[op], case.elements
    bits = -(-elements // 8) if chosen.relu and chosen.residual else 0
    return (chosen.one_read if one_read else chosen.two_reads) * elements * itemsize + bits


def host_seconds(call: Callable[[], object], repeat: int) -> float:
    """Seconds that `repeat` calls take on the host's clock."""
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
    """Times of one call in seconds: as many samples as fit into `seconds`, but at least `least`.

    elapsed(call, repeat): the seconds of `repeat` calls, such as `Backend.elapsed`. Reading the clock also takes time,
    so a call below 0.1 ms runs several times between two readings, and the sample is the mean.

        >>> len(bnkit.measure.sample(lambda: sum(range(9)), seconds=0, least=5))
        5
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
    """The median and the quartiles of `times`.

    >>> bnkit.measure.summarize([1.0, 2.0, 3.0])
    Timing(median=2.0, low=1.5, high=2.5)
    """
    if len(times) == 1:
        return Timing(times[0], times[0], times[0])
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)


def time_calls(call: Callable[[], object], backend: Backend, *, seconds: float = 0.5, least: int = 5) -> Timing:
    """The time of `call` on the clock of the backend's device, which is synchronized."""
    return summarize(sample(call, backend.elapsed, seconds=seconds, least=least))


def copy_bandwidth(backend: Backend, *, nbytes: int | None = None, seconds: float = 0.5) -> float:
    """Bytes read and written per second when all threads of the kernels copy an array.

    nbytes: the array's size; by default 256 MiB for each of up to four threads, or four times the largest cache.
    """
    threads = backend.details().get("threads") or 1  # a GPU lists none: its copy is one call
    if nbytes is None:
        # glibc bypasses the cache only above a size that it derives from the caches. On a virtual machine with 32 MiB
        # of cache this size was 240 MiB: a copy ran at 27 GB/s below it and at 46 GB/s above it.
        nbytes = max(min(threads, 4) * 256 * 2**20, 4 * max(caches(backend).values(), default=0))
    source = backend.asarray(np.ones(nbytes // 4, np.float32))
    target = backend.xp.zeros_like(source)
    bounds = [source.shape[0] * i // threads for i in range(threads + 1)]
    parts = [slice(a, b) for a, b in itertools.pairwise(bounds)]

    def copy(part: slice) -> None:  # NumPy releases the GIL here
        target[part] = source[part]

    if threads == 1:
        return 2 * nbytes / time_calls(lambda: copy(parts[0]), backend, seconds=seconds).median
    with ThreadPoolExecutor(threads) as pool:
        return 2 * nbytes / time_calls(lambda: list(pool.map(copy, parts)), backend, seconds=seconds).median


def product_rate(backend: Backend, *, size: int = 2048, seconds: float = 0.5) -> float:
    """Additions and multiplications per second while each thread multiplies two size x size float32 matrices."""
    a, b = (backend.asarray(np.full((size, size), value, np.float32)) for value in (0.5, 2))
    products = [lambda: backend.xp.matmul(a, b)] * backend.threads
    median = time_calls(lambda: backend.run(products), backend, seconds=seconds, least=3).median
    return 2 * size**3 * backend.threads / median


def caches(backend: Backend) -> dict[str, int]:
    """The sizes of the caches in bytes, smallest first, by name; empty where the system does not report them."""
    reported: dict[str, int] | None = backend.details().get("caches")
    if reported is not None:
        return reported
    return host_caches() if backend.array_module == "numpy" and sys.platform == "linux" else {}


def host_caches() -> dict[str, int]:
    """The data caches that Linux reports for the first CPU, in bytes by name."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError, ValueError):
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction" and size.endswith("K"):
                sizes[f"L{level}"] = int(size[:-1]) * 1024
    return sizes


def __dir__() -> list[str]:
    return list(__all__)
