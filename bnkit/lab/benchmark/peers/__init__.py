"""Peers: other libraries to measure against, each in a separate process, since two OpenMP runtimes in one would clash.

The process (`python -m bnkit.lab.benchmark.peers NAME THREADS DEVICE`) answers each line of JSON on stdin by one line
on stdout:

    when it starts                                      {"versions": {"torch": "2.13.0"}}
    {"prepare": {"workload": "batch_norm", …}}          {"entries": ["F.batch_norm", …]}
    {"measure": "F.batch_norm", "seconds": 0.1, "least": 3, "warm_up": true}
                                                        {"times": [seconds, …]}

If a request fails, the answer is {"error": reason}, and the process continues. A workload is a module of this package
with `prepare(peer, specification)`, which returns calls by name. On the CPU a call has finished when it returns; on a
GPU the clock of the device measures it.
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

# The package that each peer needs. Nothing here imports it.
PACKAGES = {"torch": "torch", "jax": "jax", "tutorial": "numpy", "torch-compile": "torch", "cudnn": "torch"}

# The peers that compute on a backend's device, by the module of its arrays.
ON_DEVICE = {"numpy": ("torch", "jax", "tutorial", "torch-compile"), "cupy": ("torch", "torch-compile", "cudnn")}


class PeerError(RuntimeError):
    """A request to a peer failed; `alive` says whether the peer still answers."""

    def __init__(self, message: str, *, alive: bool) -> None:
        super().__init__(message)
        self.alive = alive


def check_installed(name: str) -> None:
    """ValueError for an unknown peer; ImportError with the remedy if its package is not installed."""
    if name not in PACKAGES:
        raise ValueError(f"a peer must be one of {', '.join(PACKAGES)}, got {name!r}")
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise ImportError(f"peer {name!r} needs {PACKAGES[name]}; run pip install {PACKAGES[name]}")


def command(name: str, threads: int, device: str = "cpu") -> list[str]:
    """The command that starts a peer. device: PyTorch's name of the device, such as "cpu" or "cuda:0"."""
    module = [sys.executable, "-P", "-m", "bnkit.lab.benchmark.peers"]  # -P: import nothing from the current folder
    return [*module, name, str(threads), device]


class Peer:
    """A peer's process. It starts with the object and ends with `close`."""

    def __init__(self, name: str, command: Sequence[str], threads: int, *, patience: float = 180.0) -> None:
        """Start the process and read its versions; PeerError if it fails. patience: seconds to wait for an answer."""
        self.name = name
        self._patience = patience
        self._child = Child(command, threads)
        self._lines: queue.Queue[str] = queue.Queue()
        self._lost = ""
        threading.Thread(target=self._read, daemon=True).start()
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer; PeerError if the answer is an error, is not JSON, or does not come."""
        if self._lost:
            raise PeerError(self._lost, alive=False)
        self._child.send(json.dumps(message).encode() + b"\n")
        return self._answer()

    def close(self) -> None:
        """End the process. A second call does nothing."""
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
            self._lost = f"answered {line.strip()[:60]!r}, which is no JSON; see what Python prints when it starts"
            self.close()
            raise PeerError(self._lost, alive=False) from error
        if "error" in answer:
            raise PeerError(answer["error"], alive=True)
        return answer

    def _read(self) -> None:
        """Put each line into the queue, and "" at the end. A pipe has no read with a timeout; a queue has."""
        with contextlib.suppress(ValueError):  # `close` has closed the pipe
            for line in self._child.stdout:
                self._lines.put(line.decode(errors="replace"))
        self._lines.put("")
