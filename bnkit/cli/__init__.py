"""The command line, and the only place that prints. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. An error is one line on stderr, with `--debug` a traceback."""
    from bnkit.cli.app import call  # typer and rich take longer to import than most commands take to fail

    return call(argv)


def start() -> int:
    """`main` as a process of its own: Ctrl-C while it imports or ends is one line, not a traceback."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as in a background job
        return main()
    signal.signal(signal.SIGINT, _interrupted)  # an import may swallow a KeyboardInterrupt
    import bnkit.cli.app  # noqa: F401

    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    with contextlib.suppress(Exception):  # _interrupted loses what stdout still holds
        sys.stdout.flush()
    signal.signal(signal.SIGINT, _interrupted)  # while the interpreter waits for threads
    return code


def _interrupted(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"bnkit: interrupted\n")
    os._exit(INTERRUPTED)
