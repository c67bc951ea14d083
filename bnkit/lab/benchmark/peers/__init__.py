"""Other implementations to measure against, each in a process of its own: two OpenMP runtimes in one would fight.

The process (`python -m bnkit.lab.benchmark.peers NAME THREADS DEVICE`) answers each line of JSON on stdin with one on
stdout:

    at its start                                        {"versions": {"torch": "2.13.0"}}
    {"prepare": {"workload": "batch_norm", …}}          {"entries": ["F.batch_norm", …]}
    {"measure": "F.batch_norm", "seconds": 0.1, "least": 3, "warm_up": true}
                                                        {"times": [seconds, …]}

or with {"error": reason} where it cannot, after which it goes on. A workload is a module beside this one with
`prepare(peer, specification)`, which returns calls by name, each of them done when it returns, or on a GPU under way:
there the device's own clock tells its time.
"""

import contextlib
import importlib.util
import json
import queue
import sys
import threading
from collections.abc import Sequence
from typing import Any

from bnkit.lab.child import Child

# What must be importable, which is found out without importing it.
PACKAGES = {"torch": "torch", "jax": "jax", "tutorial": "numpy", "torch-compile": "torch", "cudnn": "torch"}

# Who computes on the device of a backend, by the module of its arrays.
ON_DEVICE = {"numpy": ("torch", "jax", "tutorial", "torch-compile"), "cupy": ("torch", "torch-compile", "cudnn")}


class PeerError(RuntimeError):
    """A peer could not do what it was asked for; `alive` tells whether it can still be asked."""

    def __init__(self, message: str, *, alive: bool) -> None:
        super().__init__(message)
        self.alive = alive


def check_installed(name: str) -> None:
    """ValueError for a peer that nobody knows, ImportError with the remedy for one that is not installed."""
    if name not in PACKAGES:
        raise ValueError(f"a peer must be one of {', '.join(PACKAGES)}, got {name!r}")
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise ImportError(f"peer {name!r} needs {PACKAGES[name]}; run pip install {PACKAGES[name]}")


def command(name: str, threads: int, device: str = "cpu") -> list[str]:
    """device: where the peer computes, as PyTorch names it."""
    called = [sys.executable, "-P", "-m", "bnkit.lab.benchmark.peers"]  # -P: nothing from the current folder
    return [*called, name, str(threads), device]


class Peer:
    """A peer's process, from its start until `close`."""

    def __init__(self, name: str, command: Sequence[str], threads: int, *, patience: float = 180.0) -> None:
        """Start it and read what it is; PeerError where it does not come up. patience: seconds for an answer."""
        self.name = name
        self._patience = patience
        self._child = Child(command, threads)
        self._lines: queue.Queue[str] = queue.Queue()
        self._lost = ""
        threading.Thread(target=self._read, daemon=True).start()
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer; PeerError with its reason where it is an error, is none, or does not come."""
        if self._lost:
            raise PeerError(self._lost, alive=False)
        self._child.send(json.dumps(message).encode() + b"\n")
        return self._answer()

    def close(self) -> None:
        """End the process; a second time does nothing."""
        self._lost = self._lost or "was closed"
        self._child.close()

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._patience)
        except queue.Empty:
            self._lost = f"gave no answer in {self._patience:g} s, and was ended"
        else:
            if not line:
                self._lost = self._child.end()
        if self._lost:
            self.close()
            raise PeerError(self._lost, alive=False)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            self._lost = f"answered {line.strip()[:60]!r}, which is no JSON; see what prints when Python starts"
            self.close()
            raise PeerError(self._lost, alive=False) from error
        if "error" in answer:
            raise PeerError(answer["error"], alive=True)
        return answer

    def _read(self) -> None:
        """Put each line into the queue, and an empty one at the end: a pipe itself cannot be read with a limit."""
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in self._child.stdout:
                self._lines.put(line.decode(errors="replace"))
        self._lines.put("")
