"""What an experiment does by its settings: parts that may run at the same time, and that can be resumed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnkit.backend import Array, Backend
from bnkit.lab.experiments.records import Record
from bnkit.nn.archive import HostArrays


class State(NamedTuple):
    """A part after some updates: notes that JSON can hold, and arrays on the host."""

    notes: dict[str, Any]
    arrays: HostArrays


class Stopped(Exception):
    """The run ends, and this part with it; its state is saved if the run has a checkpoint."""


class Session:
    """The run as one part's work sees it: what it reports to, and the state that it resumes from."""

    def __init__(
        self,
        report: Callable[[int], None],
        stopped: Callable[[], bool] = lambda: False,
        *,
        save: Callable[[State], None] | None = None,
        every: float = 0.0,
        resumed: State | None = None,
    ) -> None:
        """every: seconds from one `save` to the next."""
        self._report, self._stopped, self._save, self._every = report, stopped, save, every
        self._due = time.monotonic() + every
        self.resumed = resumed

    def tell(self, updates: int, state: Callable[[], State] | None = None) -> None:
        """Report the updates done so far. `state` returns the state after them, and is called where it is saved.

        Raises Stopped where the run ends.
        """
        self._report(updates)
        stopped = self._stopped()
        if self._save is not None and state is not None and (stopped or time.monotonic() >= self._due):
            self._save(state())
            self._due = time.monotonic() + self._every
        if stopped:
            raise Stopped


@dataclass(frozen=True)
class Part:
    """work(session) makes `updates` updates, tells of each, and returns records that JSON keeps as they are.

    effort: about how many multiplications that takes.
    """

    name: str
    updates: int
    effort: int
    work: Callable[[Session], list[Record]]


class Plan(NamedTuple):
    """The parts, the backend that they run on, and the data that their records depend on.

    order: the key by which the records of all parts are sorted; without it they keep the order of the parts.
    """

    backend: Backend
    data: Sequence[Array]
    parts: Sequence[Part]
    order: Callable[[Record], Any] | None = None
