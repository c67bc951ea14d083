"""What a device must offer: the `Backend` base class, and the error of one that cannot run."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from bnkit import reference
from bnkit.backend.layout import Layout, is_int, make_layout, memory_order
from bnkit.backend.messages import shown
from bnkit.reference import Array as Array  # for those who import this module

T = TypeVar("T")
Key = tuple[int | Sequence[int], int, int]


class BackendError(RuntimeError):
    """A backend that was asked for is absent or cannot run; the message ends with what mends it.

    `hardware` tells whether the device itself is there: then `auto` warns before it falls back.
    """

    def __init__(self, message: str, *, remedy: str = "", hardware: bool = False) -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)  # pickle knows the whole message alone
        self.remedy = remedy
        self.hardware = hardware


class Backend:
    """Arrays of one library on one device, and the ops over them; every op falls back to `bnkit.reference`.

    A subclass sets `name` and `array_module` (the top-level package of its array types), sets `xp` and `device` in
    `__init__(device)`, which raises BackendError where it cannot run, and overrides the ops that it does measurably
    faster. backends/README.md has the contract.
    """

    name: ClassVar[str]
    array_module: ClassVar[str]
    xp: Any
    device: Any
    threads: int = 1  # how many tasks `run` does at the same time

    def __init__(self, device: str | None = None) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<bnkit backend {self.key}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Backend":
        return self

    @property
    def key(self) -> str:
        """The name that `get_backend` answers with this very backend."""
        return self.name

    @classmethod
    def owns(cls, array_type: type) -> bool:
        """Whether arrays of this type are this backend's."""
        return cls.array_module in {base.__module__.partition(".")[0] for base in array_type.__mro__}

    @classmethod
    def key_of(cls, array: Array) -> str:
        """The key of the backend on whose device `array` lies."""
        return cls.name

    @classmethod
    def resolve(cls, device: str | None) -> str:
        """The key that `name` or `name:device` stands for at this moment."""
        if device is not None:
            raise BackendError(f"backend {cls.name!r} has no device {device!r}", remedy=f"ask for {cls.name!r}")
        return cls.name

    def details(self) -> dict[str, Any]:
        """Device, library versions, threads, SIMD level, compiled kernels: what `bnkit info` shows."""
        return {}

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """`a` as an array of this backend on its device: the one place where data move."""
        return self.xp.asarray(a, dtype=dtype)

    def to_numpy(self, a: Array) -> np.ndarray:
        """`a` as a NumPy array on the host."""
        return np.asarray(a)

    def synchronize(self) -> None:
        """Wait until the device has done everything that it was given."""

    def elapsed(self, call: Callable[[], object], repeat: int = 1) -> float:
        """Seconds from the start to the end of `repeat` calls on the device, by the clock that tells it best."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        self.synchronize()
        return time.perf_counter() - start

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of the tasks in their order; they must share nothing that one of them writes without a lock."""
        return [task() for task in tasks]

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What `use_backend` holds open: where a library has a current device, this backend's."""
        return contextlib.nullcontext()

    def writeable(self, a: Array) -> bool:
        return True

    def overlap(self, a: Array, b: Array) -> bool:
        """Whether a write to `a` may change `b`."""
        return a is b

    def plain_views(
        self,
        x: Array,
        others: tuple[Array | None, ...],
        parameters: tuple[Array | None, ...],
        copies: int,
        layout: Layout,
    ) -> tuple[Any, ...] | None:
        """What an op takes of all these arrays, if one look tells that they need no other check; else None.

        They need none where all are C contiguous, aligned and writeable, none overlaps another in memory, the others
        have the dtype, one that batch norm takes, and the shape of x, and the parameters have the dtype that goes with
        it and the shape `layout.parameters`. Then come, in their order, x and the others as `layout.shape` and the
        parameters as `layout.flat`: views, but of the first `copies` parameters copies.
        """
        return None

    def layout(self, x: Array, axis: int | tuple[int, ...]) -> Layout:
        """How an op walks x when it reduces every axis but `axis`."""
        return make_layout(tuple(x.shape), axis, memory_order(x))

    def view(self, x: Array, axis: int | tuple[int, ...]) -> Array:
        """x as `(groups, rows, channels, inner)`, C contiguous; `layout` is what a backend may override.

        No copy where x is dense in C order, channels-last, or another order that reads as such a view; else one.
        """
        return self.layout(x, axis).view(self.xp, x)

    def uniform(self, key: Key, shape: tuple[int, ...]) -> Array:
        """float32 in [0, 1), a function of `key = (seed, layer, step)` and the element's index alone.

        With a sequence of seeds, one for each entry of the leading axis, entry r is `uniform((seed[r], …), shape[1:])`.
        Philox4x32-10: key words are the seed's 32-bit halves, counter words are (index // 4, layer, step's halves),
        and element i is word i % 4. seed and step lie below 2**64, layer below 2**32, an entry holds up to 2**34.
        """
        of_key, layer, step = key
        single = is_int(of_key) or not isinstance(of_key, Iterable) or isinstance(of_key, str)
        seeds: list[Any] = [of_key] if single else list(of_key)  # type: ignore[arg-type]
        limits = [("layer", layer, 2**32), ("step", step, 2**64), *(("seed", s, 2**64) for s in seeds)]
        for name, value, below in limits:
            if not is_int(value):
                raise TypeError(f"key must hold an int as its {name}, got {shown(value)}")
            if not 0 <= value < below:
                raise ValueError(f"key must hold a {name} of at least 0 and below {below}, got {value}")
        entry = tuple(shape) if single else tuple(shape[1:])
        size = int(np.prod(entry, dtype=np.int64))
        words = np.asarray(seeds, dtype=np.uint64)
        if not single and (not shape or words.shape != (shape[0],)):
            raise ValueError(f"key must hold one seed for each of the leading axis of {shape}, got {words.shape}")
        return self.xp.reshape(self._draw(words, layer, step, size), tuple(shape))

    def _draw(self, seeds: np.ndarray, layer: int, step: int, size: int) -> Array:
        """`size` elements for each of the uint64 seeds; what a backend overrides of `uniform`."""
        blocks = self.asarray(np.arange(-(-size // 4), dtype=np.uint64))
        key_words = tuple(self.asarray(w.astype(np.uint64)[:, None]) for w in (seeds & 0xFFFFFFFF, seeds >> 32))
        drawn = reference.uniform(self.xp, blocks, (key_words[0], key_words[1]), (layer, step & 0xFFFFFFFF, step >> 32))
        return self.xp.reshape(drawn, (seeds.shape[0], -1))[:, :size]

    def batch_norm_moments(self, args: reference.MomentsArguments) -> reference.Moments:
        return reference.batch_norm_moments(self.xp, args)

    def batch_norm_train(self, args: reference.TrainArguments) -> reference.BatchNormTrain:
        return reference.batch_norm_train(self.xp, args)

    def batch_norm_inference(self, args: reference.InferenceArguments) -> tuple[Array, Array | None]:
        return reference.batch_norm_inference(self.xp, args)

    def batch_norm_gradient_sums(self, args: reference.GradientSumsArguments) -> tuple[Array, Array]:
        return reference.batch_norm_gradient_sums(self.xp, args)

    def batch_norm_backward(self, args: reference.BackwardArguments) -> reference.BatchNormBackward:
        return reference.batch_norm_backward(self.xp, args)

    def matmul(self, a: Array, b: Array) -> Array:
        return reference.matmul(self.xp, a, b)

    def softmax_cross_entropy(self, logits: Array, target: Array) -> tuple[Array, Array]:
        return reference.softmax_cross_entropy(self.xp, logits, target)

    def optimizer_step(self, args: reference.StepArguments) -> None:
        reference.optimizer_step(self.xp, args)


def dtype_name(a: Array) -> str:
    """The dtype of an array by its plain name, also where the library wraps it: "float32", "bfloat16"."""
    return _dtype_name(type(a.dtype).__module__, a.dtype)


@functools.cache  # NumPy computes a name anew each time. The module keeps apart the dtypes of two libraries.
def _dtype_name(_: str, dtype: Any) -> str:
    name = getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]
    return name if getattr(dtype, "isnative", True) else f"{name} in foreign byte order"
