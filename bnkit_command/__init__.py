"""Where the command line starts: outside bnkit, whose import takes long enough to meet a Ctrl-C with a traceback."""

import atexit
import contextlib
import os
import signal
import sys
from typing import Any

INTERRUPTED = 130


def main() -> int:
    """The exit code of `bnkit.cli.main`; a Ctrl-C before it ends the process at once, with one line."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is ignored
    if ours:
        signal.signal(signal.SIGINT, _end)
    from bnkit.cli import main as run

    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run()
    except KeyboardInterrupt:  # just before run looked out for it, or just after
        code = _tell()
    if ours:
        with contextlib.suppress(Exception):  # else _leave would lose what stdout still holds
            sys.stdout.flush()
        signal.signal(signal.SIGINT, _leave)  # while threads are waited for
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # else Python's end takes the handler away
    return code


def _end(number: int, frame: Any) -> None:
    """No KeyboardInterrupt: an import may swallow it, or take it for another error."""
    os._exit(_tell())


def _leave(number: int, frame: Any) -> None:
    os._exit(INTERRUPTED)


def _tell() -> int:
    with contextlib.suppress(OSError):
        os.write(2, b"bnkit: interrupted\n")
    return INTERRUPTED
