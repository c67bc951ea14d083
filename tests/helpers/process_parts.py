"""A plan that another process can make, whose parts do what their names say and meet by files of a folder."""

import dataclasses
import os
import threading
import time
from pathlib import Path

import bnkit
from bnkit.data.files import replacing
from bnkit.lab.experiments import settings as shared
from bnkit.lab.experiments.plan import Part, Plan

LONG = 60.0  # seconds that nothing here may take
UPDATES = 5


@dataclasses.dataclass(frozen=True)
class Settings(shared.Settings):
    folder: str = ""
    names: tuple[str, ...] = ()
    efforts: tuple[int, ...] = ()  # one a name; without, the first ones are the longest


class Awkward(Exception):
    """Pickle cannot carry it."""

    def __init__(self, number):
        super().__init__(f"number {number}")
        self.lock = threading.Lock()


def plan(settings):
    folder, efforts = Path(settings.folder), settings.efforts or range(len(settings.names), 0, -1)

    def part(name, effort):
        def work(session):
            with replacing(folder / f"{name}.begun", mode="w") as file:  # others look at it meanwhile
                file.write(str(os.getpid()))
            ACTIONS.get(name.partition(" ")[0], quick)(folder, name, session)
            for n in range(UPDATES):
                session.tell(n + 1)
            return [{"name": name, "process": os.getpid(), "backend": settings.backend}]

        return Part(name, UPDATES, effort, work)

    return Plan(bnkit.get_backend("numpy"), (), [part(*each) for each in zip(settings.names, efforts)])


def wait_for(path):
    end = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.005)


def quick(folder, name, session):
    """Nothing beside the updates."""


def after(folder, name, session):
    """ "after b" waits until b has begun."""
    wait_for(folder / f"{name.partition(' ')[2]}.begun")


def for_ever(folder, name, session):
    """What only the end of its process ends."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        session.tell(1)
        time.sleep(0.001)


def fails(folder, name, session):
    wait_for(folder / "may fail")
    raise ValueError("wrong")


def later(folder, name, session):
    """What fails the first time."""
    if not (folder / "failed").exists():
        (folder / "failed").touch()
        raise ValueError("not yet")


def awkward(folder, name, session):
    raise Awkward(3)


def dies(folder, name, session):
    wait_for(folder / "may fail")
    os.write(2, b"first\nno memory left\n\n")
    os._exit(3)


def prints(folder, name, session):
    print("a library greets", flush=True)
    os.write(1, b"and another, from C\n")


def index(folder, name, session):
    raise IndexError("index 10 is out of bounds")


def memory(folder, name, session):
    raise MemoryError("Unable to allocate 1 TiB")


def ticks(folder, name, session):
    """An update now and then, for longer than a process keeps silent about them."""
    for n in range(8):
        session.tell(n % UPDATES)
        time.sleep(0.05)


ACTIONS = {
    "after": after,
    "for": for_ever,
    "fails": fails,
    "later": later,
    "awkward": awkward,
    "dies": dies,
    "prints": prints,
    "index": index,
    "memory": memory,
    "ticks": ticks,
}
