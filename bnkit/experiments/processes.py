"""Parts of an experiment at the same time, each in a process: threads of one would wait for Python's lock.

A process (`python -m bnkit.experiments.worker`) reads pickles from its stdin: first (plan, settings), then the name of
a part at a time. For each it writes ("told", updates) now and then, and at last ("records", …) or ("error", …).
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from bnkit.experiments.records import Record

# The variables by which thread pools are sized: each process has one processor.
_THREADS = ("BNKIT_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ProcessError(RuntimeError):
    """A process ended before its part did."""


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
    with contextlib.suppress(IndexError):
        while True:
            name = left.popleft()
            finish(name, worker.work(name, tell))


class _Worker:
    """A process, from its start until `close`."""

    def __init__(self, plan: Callable[[Any], Any], settings: Any) -> None:
        task = pickle.dumps((plan, settings))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        path = [os.path.abspath(folder) for folder in sys.path]  # "" is the current folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bnkit.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | dict.fromkeys(_THREADS, "1") | {"PYTHONPATH": os.pathsep.join(path)},
        )
        self._send(task)

    def work(self, name: str, tell: Callable[[str, int], None]) -> list[Record]:
        """The records of a part; what its work raised, or ProcessError where the process ended."""
        self._send(pickle.dumps(name))
        while True:
            kind, value = self._receive(name)
            if kind == "error":
                raise value
            if kind == "records":
                found: list[Record] = value
                return found
            tell(name, value)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with contextlib.suppress(OSError):  # what could not be written any more
                stream.close()

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it ended: `_receive` tells why
            self._process.stdin.write(message)
            self._process.stdin.flush()

    def _receive(self, name: str) -> tuple[str, Any]:
        assert self._process.stdout is not None
        try:
            answer: tuple[str, Any] = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise ProcessError(
                f"the process of {name!r} ended with exit code {self._process.wait()}{self._last_error()}; with "
                f"BNKIT_NUM_THREADS=1 there is one process, which needs less memory"
            ) from error
        return answer

    def _last_error(self) -> str:
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f" ({said[-1]})" if said else ""
