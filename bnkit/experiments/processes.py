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
        try:
            self._send(task)
        except BaseException:
            self.close()
            raise

    def work(self, name: str, tell: Callable[[str, int], None]) -> list[Record]:
        """The records of a part; what its work raised, or RuntimeError where the process did not get that far."""
        self._send(pickle.dumps(name))
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
        except EOFError as error:
            said = f"ended with exit code {self._process.wait()}{self._last_error()}"
            raise RuntimeError(f"the process of {name!r} {said}; {_REMEDY}") from error
        except Exception as error:  # pickle raises anything on what is none
            self._process.kill()
            raise RuntimeError(
                f"the process of {name!r} gave an answer that is no pickle; see what prints when Python starts"
            ) from error
        return answer

    def _last_error(self) -> str:
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f" ({said[-1]})" if said else ""
