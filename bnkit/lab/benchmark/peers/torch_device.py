"""The device of PyTorch's tensors, and its clock."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch

from bnkit.lab.benchmark.measure import host_seconds

Place = Callable[[], contextlib.AbstractContextManager[Any]]


def choose(device: str, threads: int) -> tuple[Place, Callable[[Callable[[], object], int], float]]:
    """A context that puts new tensors on `device`, and a function that measures the seconds of calls there."""
    torch.set_num_threads(threads)
    if device == "cpu":
        return contextlib.nullcontext, host_seconds
    if not torch.cuda.is_available():
        sys.exit(f"this PyTorch, {torch.__version__}, finds no CUDA device")
    torch.cuda.set_device(device)
    # Not torch.set_default_device: it intercepts every call of PyTorch, which would slow the timed calls.
    return lambda: torch.device(device), _event_seconds


def _event_seconds(call: Callable[[], object], repeat: int) -> float:
    """The time between two CUDA events, as bnkit times its calls on a GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeat):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
