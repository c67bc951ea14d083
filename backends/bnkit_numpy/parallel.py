"""Tasks done at the same time, a thread each, while BLAS and the kernels keep to one thread."""

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import threadpoolctl

T = TypeVar("T")


def run(tasks: Sequence[Callable[[], T]], kernels: Any) -> list[T]:
    """The results of the tasks in their order; the first runs in this thread, the others in copies of its context.

    One caller at a time: the others wait, as they would for the processors. Tasks of a task run in its own thread.
    """
    if _in_task.get():
        return [task() for task in tasks]
    with _one_thread_each(kernels), _entered(), ThreadPoolExecutor(max(len(tasks) - 1, 1)) as threads:
        # Threads of this call alone, since those of a pool that lived on would be gone after a fork.
        others = [threads.submit(contextvars.copy_context().run, task) for task in tasks[1:]]
        return [*(task() for task in tasks[:1]), *(other.result() for other in others)]


_in_task = contextvars.ContextVar("_in_task", default=False)


@contextlib.contextmanager
def _entered() -> Iterator[None]:
    before = _in_task.set(True)
    try:
        yield
    finally:
        _in_task.reset(before)


class _Setting:
    """Who may change the thread settings, which are the whole process's, and what sets them back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.restore = contextlib.ExitStack()


_setting = _Setting()


@contextlib.contextmanager
def _one_thread_each(kernels: Any) -> Iterator[None]:
    """Two BLAS threads take longer over a small product than one, and would take the other tasks' processors.

    threadpoolctl lets only the thread that made a setting take it back, so two callers cannot share one.
    """
    setting = _setting
    with setting.lock, setting.restore as restore:
        restore.enter_context(threadpoolctl.threadpool_limits(1, user_api="blas"))
        if kernels is not None:
            restore.callback(kernels.set_threads, kernels.get_threads())
            kernels.set_threads(1)
        yield


def _start_anew() -> None:
    """The child of a fork has none of the parent's threads to set back what they set, nor to release the lock."""
    global _setting
    _setting.restore.close()
    _setting = _Setting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
