"""Parts of an experiment at the same time, each in a process: threads of one would wait for Python's lock.

A process (`python -m bnkit.lab.experiments.worker`) reads pickles of (plan, settings, name of a part) from its stdin,
with the same plan and settings each time. It answers each by ("told", updates) now and then, and at last
("records", …) or ("error", …).
"""

import contextlib
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from bnkit.lab.child import Child
from bnkit.lab.experiments.records import Record

_REMEDY = "with BNKIT_NUM_THREADS=1 all parts are worked on in one process, which needs less memory"


def share(
    plan: Callable[[Any], Any],
    settings: Any,
    names: Sequence[str],
    count: int,
    tell: Callable[[str, int], None],
    finish: Callable[[str, list[Record]], None],
) -> None:
    """The parts of `plan(settings)` with these names, the first ones first, in `count` processes.

    plan and settings are pickled. tell(name, updates) and finish(name, records) are called by several threads. An error
    in a part, of a call or of this thread (an interruption) ends the processes at once.
    """
    left = deque(names)
    with contextlib.ExitStack() as open_until_now:
        threads = open_until_now.enter_context(ThreadPoolExecutor(count))
        workers = [open_until_now.enter_context(contextlib.closing(_Worker(plan, settings))) for _ in range(count)]
        serving = [threads.submit(_serve, worker, left, tell, finish) for worker in workers]
        pending = set(serving)
        while pending:  # on Windows an interruption is heard between waits
            done, pending = wait(pending, timeout=1, return_when=FIRST_EXCEPTION)
            for each in done:
                each.result()


def _serve(worker: "_Worker", left: deque[str], tell: Any, finish: Any) -> None:
    """Have the worker do one part after the other until there is none."""
    while True:
        try:
            name = left.popleft()
        except IndexError:  # whichever thread was first, there is none left
            return
        finish(name, worker.work(name, tell))


class _Worker:
    """A process, from its start until `close`."""

    def __init__(self, plan: Callable[[Any], Any], settings: Any) -> None:
        self._task = plan, settings
        path = [os.path.abspath(folder) for folder in sys.path]  # "" is the current folder
        command = [sys.executable, "-P", "-m", "bnkit.lab.experiments.worker"]
        self._child = Child(command, 1, PYTHONPATH=os.pathsep.join(path))
        self.close = self._child.close

    def work(self, name: str, tell: Callable[[str, int], None]) -> list[Record]:
        """The records of a part; what its work raised, or RuntimeError where the process did not get that far."""
        self._child.send(pickle.dumps((*self._task, name)))
        while True:
            kind, value = self._receive(name)
            if kind == "error" and isinstance(value, MemoryError):
                raise RuntimeError(f"the process of {name!r} had no memory left; {_REMEDY}") from value
            if kind == "error":
                raise value
            if kind == "records":
                found: list[Record] = value
                return found
            tell(name, value)

    def _receive(self, name: str) -> tuple[str, Any]:
        try:
            answer: tuple[str, Any] = pickle.load(self._child.stdout)
        except EOFError as error:
            raise RuntimeError(f"the process of {name!r} {self._child.end()}; {_REMEDY}") from error
        except Exception as error:  # pickle raises anything on what is none
            raise RuntimeError(
                f"the process of {name!r} gave an answer that is no pickle; see what prints when Python starts"
            ) from error
        return answer
