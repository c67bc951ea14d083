"""Parts of an experiment in the workers of a `concurrent.futures` executor: threads or processes.

A worker and the run share a folder. The worker writes its number of updates there, from time to time; the run asks all
workers to stop by a file named `stop`. So any executor serves whose workers see this machine's files.
"""

import contextlib
import contextvars
import functools
import importlib.util
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnkit.lab.experiments.plan import Part, Plan, Session, Stopped
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.resumption import PartFile

_PAUSE = 0.1  # seconds between two looks at the shared folder, of the run and of a worker
_GRACE = 1.0  # seconds for the workers to save their parts when the run ends early
_POOLS = ("BNKIT_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_REMEDY = "with BNKIT_NUM_THREADS=1 all parts run in one process, which needs less memory"


@dataclass(frozen=True)
class Task:
    """A part as a worker gets it: in another process it makes the plan anew and takes the part of this name."""

    plan: Callable[[Any], Plan]
    settings: Any
    name: str
    folder: str
    number: int
    file: PartFile | None
    every: float


# By folder: the context and the parts of the runs of this process, for workers that are its threads.
_RUNS: dict[str, tuple[contextvars.Context, Mapping[str, Part]]] = {}


def share(
    executor: Executor,
    plan: Callable[[Any], Plan],
    settings: Any,
    parts: Sequence[Part],
    file: Callable[[str], PartFile | None],
    every: float,
    tell: Callable[[str, int], None],
    finish: Callable[[str, list[Record]], None],
) -> None:
    """Run the parts, the first ones first; `tell` and `finish` are called in this thread.

    An error in a part, in a call or in this thread (an interruption) stops all parts.
    """
    with tempfile.TemporaryDirectory(prefix="bnkit-run-", ignore_cleanup_errors=True) as folder:
        _RUNS[folder] = contextvars.copy_context(), {part.name: part for part in parts}
        futures: dict[Future[list[Record]], Part] = {}
        try:
            for number, part in enumerate(parts):
                task = Task(plan, settings, part.name, folder, number, file(part.name), every)
                futures[executor.submit(work_on, task)] = part
            _collect(futures, folder, tell, finish)
        except BaseException:
            _stop(folder)
            for future in futures:
                future.cancel()
            wait([future for future in futures if not future.cancelled()], timeout=_GRACE)
            raise
        finally:
            del _RUNS[folder]


def _collect(
    futures: Mapping[Future[list[Record]], Part],
    folder: str,
    tell: Callable[[str, int], None],
    finish: Callable[[str, list[Record]], None],
) -> None:
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, timeout=_PAUSE, return_when=FIRST_COMPLETED)
        for future in ended:
            try:
                finish(futures[future].name, future.result())
            except Stopped:  # another part's error is on its way
                continue
            except BrokenExecutor as error:
                begun = [repr(part.name) for i, part in enumerate(futures.values()) if _updates(folder, i) is not None]
                raise RuntimeError(f"a process of {' or '.join(begun)} died: {error}; {_REMEDY}") from error
        for number, (future, part) in enumerate(futures.items()):
            updates = _updates(folder, number) if future in pending else None
            if updates is not None:
                tell(part.name, updates)


def work_on(task: Task) -> list[Record]:
    """The records of the task's part; what its work raised, with the traceback as a note."""
    channel = _Channel(task.folder, task.number)
    try:
        channel.report(0)
        if channel.stopped():
            raise Stopped
        if task.folder in _RUNS:
            context, parts = _RUNS[task.folder]
            return context.copy().run(_work, task, parts[task.name], channel)
        plan = _made(task.plan, task.settings)
        part = next(part for part in plan.parts if part.name == task.name)
        return plan.backend.run([functools.partial(_work, task, part, channel)])[0]
    except Stopped:
        raise
    except MemoryError as error:
        _stop(task.folder)
        raise RuntimeError(f"the process of {task.name!r} had no memory left; {_REMEDY}") from error
    except Exception as error:
        _stop(task.folder)  # before this worker begins another part
        raise _portable(error) from None


def _work(task: Task, part: Part, channel: "_Channel") -> list[Record]:
    file = task.file
    resumed, save = (None, None) if file is None else (file.load(), file.save)
    return part.work(Session(channel.report, channel.stopped, save=save, every=task.every, resumed=resumed))


_last: tuple[object, Plan] | None = None


def _made(plan: Callable[[Any], Plan], settings: Any) -> Plan:
    """plan(settings), kept for the next part of the same run."""
    global _last
    if _last is None or _last[0] != (plan, settings):
        _last = (plan, settings), plan(settings)
    return _last[1]


class _Channel:
    """A worker's end of the shared folder."""

    def __init__(self, folder: str, number: int) -> None:
        self._folder, self._file = Path(folder), Path(folder, str(number))
        self._next, self._stopped = 0.0, False

    def report(self, updates: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PAUSE
        with contextlib.suppress(OSError):  # the folder may be gone
            self._file.write_text(str(updates))
        self._stopped = not self._folder.exists() or (self._folder / "stop").exists()

    def stopped(self) -> bool:
        return self._stopped


def _stop(folder: str) -> None:
    with contextlib.suppress(OSError):
        Path(folder, "stop").touch()


def _updates(folder: str, number: int) -> int | None:
    """The updates that a worker has reported; None where it has not begun, or is writing."""
    try:
        return int(Path(folder, str(number)).read_text())
    except (OSError, ValueError):
        return None


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; a RuntimeError for one that pickle cannot carry."""
    note = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


@contextlib.contextmanager
def pool(count: int, *, processes: bool) -> Iterator[Executor]:
    """`count` processes of loky, with one thread each, that are killed at the end; threads where loky is missing."""
    if not processes or importlib.util.find_spec("loky") is None:
        with ThreadPoolExecutor(count) as threads:
            yield threads
        return
    import loky

    environment = dict.fromkeys(_POOLS, "1")
    executor = loky.ProcessPoolExecutor(count, initializer=_begin, initargs=(os.getpid(),), env=environment)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _begin(parent: int) -> None:
    """Prepare a process: Ctrl-C is the parent's to answer, and nothing is printed to its stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, whatever it does; a killed parent cannot end it."""
    while os.getppid() == parent:
        time.sleep(_PAUSE)
    os._exit(1)
