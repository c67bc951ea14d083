"""A process that works on parts of an experiment; `processes` has the protocol."""

import contextlib
import os
import pickle
import signal
import sys
import time
import traceback
from typing import Any

_PAUSE = 0.1  # seconds from one message about updates to the next


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints does not disturb the protocol
    told = 0.0

    def send(kind: str, value: Any) -> None:
        """OSError, which ends this process, where the parent is gone."""
        answers.write(pickle.dumps((kind, value)))
        answers.flush()

    def tell(updates: int) -> None:
        nonlocal told
        if time.monotonic() >= told + _PAUSE:
            send("told", updates)
            told = time.monotonic()

    parts: dict[str, Any] = {}
    with contextlib.suppress(EOFError):
        while True:
            plan, settings, name = pickle.load(sys.stdin.buffer)
            try:
                parts = parts or {part.name: part for part in plan(settings).parts}
                records = parts[name].work(tell)
            except BrokenPipeError:
                raise
            except Exception as error:
                send("error", _portable(error))
            else:
                send("records", records)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; one that pickle cannot carry as a RuntimeError."""
    note = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


if __name__ == "__main__":
    main()
