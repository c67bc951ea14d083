"""The process of a peer. The package's docstring describes its protocol."""

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from bnkit.lab.benchmark.measure import host_seconds, sample
from bnkit.lab.benchmark.peers import PACKAGES

Elapsed = Callable[[Callable[[], object], int], float]
Place = Callable[[], contextlib.AbstractContextManager[Any]]


def main(peer: str, threads: int, device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's prints go to stderr, so stdout holds answers only
    if hasattr(os, "sched_setaffinity"):  # limits pools that read no environment variable
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    place: Place = contextlib.nullcontext
    elapsed: Elapsed = host_seconds
    if PACKAGES[peer] == "torch":
        torch_device = importlib.import_module("bnkit.lab.benchmark.peers.torch_device")
        place, elapsed = torch_device.choose(device, threads)
    for answer in _answers(peer, place, elapsed):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answers(peer: str, place: Place, elapsed: Elapsed) -> Iterator[dict[str, Any]]:
    yield {"versions": _versions(peer)}
    calls: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                calls = {}  # frees the last workload's arrays before the next allocates
                with place():
                    calls = _prepare(peer, request["prepare"])
                answer: dict[str, Any] = {"entries": list(calls)}
            else:
                call = calls[request["measure"]]
                sampling = {name: request[name] for name in ("seconds", "least", "warm_up")}
                answer = {"times": sample(call, elapsed, **sampling)}
        except Exception as error:  # a library may raise anything; the process must continue
            answer = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
        yield answer


def _versions(peer: str) -> dict[str, str]:
    versions = {PACKAGES[peer]: metadata.version(PACKAGES[peer])}
    if peer == "cudnn":
        versions["cudnn"] = str(importlib.import_module("torch").backends.cudnn.version())
    return versions


def _prepare(peer: str, specification: dict[str, Any]) -> dict[str, Callable[[], object]]:
    workload = importlib.import_module(f"bnkit.lab.benchmark.peers.{specification['workload']}")
    calls: dict[str, Callable[[], object]] = workload.prepare(peer, specification)
    return calls


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
