"""A peer's process; the package's docstring has the protocol."""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from bnkit.measure import sample
from bnkit.peers import PACKAGES


def main(peer: str, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints does not disturb the protocol
    if hasattr(os, "sched_setaffinity"):  # for what no variable limits
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if peer == "torch":
        importlib.import_module("torch").set_num_threads(threads)
    for answer in _answers(peer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answers(peer: str) -> Iterator[dict[str, Any]]:
    yield {"versions": {PACKAGES[peer]: metadata.version(PACKAGES[peer])}}
    calls: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                calls = {}  # the arrays of the one before go before those of the next come
                calls = _prepare(peer, request["prepare"])
                answer: dict[str, Any] = {"entries": list(calls)}
            else:
                call = calls[request["measure"]]
                how = {name: request[name] for name in ("seconds", "least", "warm_up")}
                answer = {"times": sample(call, **how)}
        except Exception as error:  # whatever a library raises is told, and ends nothing
            answer = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
        yield answer


def _prepare(peer: str, specification: dict[str, Any]) -> dict[str, Callable[[], object]]:
    workload = importlib.import_module(f"bnkit.peers.{specification['workload']}")
    calls: dict[str, Callable[[], object]] = workload.prepare(peer, specification)
    return calls


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
