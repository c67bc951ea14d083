"""Ctrl-C while there are results to keep: it ends the work, and waits for the writing of what the work left."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_NOTE = b"bnkit: the results are being written; one moment\n"
_ONE_WISH = 1.0  # seconds


@contextlib.contextmanager
def held_on_demand() -> Iterator[Callable[[], None]]:
    """Call what is yielded before results are written: from then on, SIGINT waits for the end of the context.

    Before that it raises KeyboardInterrupt as ever, but another one in the same second does not: people press Ctrl-C
    twice, and the second must not meet the way from the work to the call.
    """
    held = waiting = False
    last = float("-inf")

    def hold() -> None:
        nonlocal held
        held = True

    def interrupt(number: int, frame: Any) -> None:
        nonlocal waiting, last
        if held:
            with contextlib.suppress(OSError):  # a closed stderr must not end the writing either
                os.write(2, b"" if waiting else _NOTE)
            waiting = True
        elif time.monotonic() - last > _ONE_WISH:
            last = time.monotonic()
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or another's
        yield hold
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield hold
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if waiting:
        raise KeyboardInterrupt
