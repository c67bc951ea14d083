"""In which order blocks and threads run, where CUDA promises none."""

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np


class Schedule(NamedTuple):
    """The same kernel with one worker runs the same way each time; several run blocks at the same time."""

    order: Literal["forward", "reverse", "random"] = "forward"
    seed: int = 0
    workers: int = 1


FORWARD = Schedule()
REVERSE = Schedule("reverse")
PARALLEL = Schedule("random", workers=max(2, os.cpu_count() or 1))
SCHEDULES = (FORWARD, REVERSE, Schedule("random", 1), Schedule("random", 2), PARALLEL)

_current: contextvars.ContextVar[Schedule] = contextvars.ContextVar("cuda_host_schedule", default=FORWARD)


def current() -> Schedule:
    return _current.get()


@contextlib.contextmanager
def use_schedule(schedule: Schedule) -> Iterator[None]:
    token = _current.set(schedule)
    try:
        yield
    finally:
        _current.reset(token)


def same_in_every_schedule(call: Callable[[], Any]) -> Any:
    """What `call` returns, arrays or tuples of arrays; AssertionError where a schedule changes a bit of it."""
    first = None
    for schedule in SCHEDULES:
        with use_schedule(schedule):
            result = call()
        bits = [np.ascontiguousarray(a).tobytes() for a in (result if isinstance(result, tuple) else (result,))]
        if first is None:
            first = (result, bits)
        assert bits == first[1], f"the result depends on the order of threads: {schedule} gives other bits"
    assert first is not None
    return first[0]
