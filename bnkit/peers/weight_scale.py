"""The weight-scale experiment of one seed, timed beside the same networks and batches in other libraries.

    python -m bnkit.peers.weight_scale --against tutorial,torch,jax --data mnist --repeats 3

Each implementation has a process of its own with the same threads, and they take turns. The seconds are those of
training and of every accuracy; data, imports and compilation are outside, "ready" tells what these took.
"""

import argparse
import dataclasses
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bnkit import data
from bnkit.experiments import weight_scale
from bnkit.init import generator

PEERS = ("tutorial", "torch", "jax")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BNKIT_NUM_THREADS")
# Accuracies at the last record, (plain, batch norm) by (scales).
Run = Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every implementation computes: its data, initial weights before scaling, and batches."""

    x: np.ndarray
    t: np.ndarray
    classes: int
    normals: list[np.ndarray]
    batches: np.ndarray  # (updates, batch) row numbers
    every: int  # the accuracy is measured after update 1, 1 + every, …
    settings: weight_scale.Settings


def problem(settings: weight_scale.Settings) -> Problem:
    """The experiment's seed 0: the very weights and batches that bnkit draws."""
    loaded = data.load(settings.data, path=settings.data_dir)
    x, t = loaded.x_train[: settings.rows], loaded.t_train[: settings.rows]
    sizes = (x.shape[1], *settings.hidden, loaded.classes)
    every = x.shape[0] // settings.batch_size
    draws = generator("batches", 0, 0)
    updates = (settings.epochs - 1) * every + 1
    batches = np.stack([draws.choice(x.shape[0], settings.batch_size) for _ in range(updates)])
    shapes = itertools.pairwise(sizes)
    normals = [generator("weights", 0, i).standard_normal(shape) for i, shape in enumerate(shapes)]
    return Problem(x, t, loaded.classes, normals, batches, every, settings)


def prepare(peer: str, specification: dict[str, Any]) -> dict[str, Run]:
    """Complete runs by name. specification: what differs from the experiment's `Settings`."""
    fields = {field.name for field in dataclasses.fields(weight_scale.Settings)}
    settings = weight_scale.Settings(**{k: v for k, v in specification.items() if k in fields}, seeds=1)
    work = problem(settings)
    if peer == "bnkit":
        return {"bnkit": lambda: _own_run(work)}
    runs: dict[str, Run] = importlib.import_module(f"bnkit.peers.weight_scale_{peer}").prepare(work)
    return runs


def _own_run(work: Problem) -> np.ndarray:
    table = weight_scale.final(weight_scale.train(work.settings, work.x, work.t, work.classes))
    return np.array([[table[scale][kind][0] for scale in work.settings.scales] for kind in (False, True)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bnkit.peers.weight_scale", description=__doc__)
    parser.add_argument("--against", default=",".join(PEERS), help="peers, with commas between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", help="a file for the measurements")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    specification = {name: getattr(arguments, name) for name in ("data", "data_dir", "epochs")}
    if arguments.serve:
        _serve(arguments.serve, specification)
        return
    names = ["bnkit", *(name for name in arguments.against.split(",") if name)]
    if unknown := set(names[1:]) - set(PEERS):
        parser.error(f"--against must be of {', '.join(PEERS)}, got {', '.join(sorted(unknown))}")
    rows = measure(names, specification, arguments.repeats, arguments.threads)
    sys.stdout.write(table(rows))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"specification": specification, "threads": arguments.threads, "rows": rows}, file, indent=1)


def measure(names: list[str], specification: dict[str, Any], repeats: int, threads: int) -> list[dict[str, Any]]:
    """A row for each entry: name, ready (s), seconds of each repeat, accuracies of the last."""
    environment = os.environ | dict.fromkeys(_THREADS, str(threads))
    command = [sys.executable, "-m", "bnkit.peers.weight_scale"]
    for name, value in specification.items():
        command += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    workers = [
        subprocess.Popen(
            [*command, "--threads", str(threads), "--serve", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for name in names
    ]  # fmt: skip
    try:
        rows: list[dict[str, Any]] = []
        asked: list[tuple[dict[str, Any], subprocess.Popen[str]]] = []
        for name, worker in zip(names, workers, strict=True):
            for entry, ready in _ask(worker, "prepare").items():
                rows.append({"entry": entry, "process": name, "ready": ready, "seconds": []})
                asked.append((rows[-1], worker))
        for _ in range(repeats):
            for row, worker in asked:
                answer = _ask(worker, row["entry"])
                row["seconds"].append(answer["seconds"])
                row["accuracies"] = answer["accuracies"]
        return rows
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, with the ratio to the first one and how far their accuracies are from its."""
    lines = [f"{'':22}{'seconds':>9}{'range':>16}{'ratio':>7}{'ready':>8}   accuracy, mean distance"]
    own = statistics.median(rows[0]["seconds"])
    for row in rows:
        seconds = statistics.median(row["seconds"])
        spread = f"{min(row['seconds']):.2f} to {max(row['seconds']):.2f}"
        plain, normalized = np.mean(row["accuracies"], axis=1)
        distance = np.abs(np.subtract(row["accuracies"], rows[0]["accuracies"])).mean()
        lines.append(
            f"{row['entry']:22}{seconds:9.2f}{spread:>16}{seconds / own:7.2f}{row['ready']:8.1f}"
            f"   plain {plain:.3f}, batch norm {normalized:.3f}, {distance:.3f}"
        )
    return "\n".join(lines) + "\n"


def _ask(worker: Any, question: str) -> dict[str, Any]:
    worker.stdin.write(question + "\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"a peer ended while it was asked for {question!r}; its error stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _serve(peer: str, specification: dict[str, Any]) -> None:
    """Answer the lines of stdin: first "prepare", then names of entries."""
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        start = time.perf_counter()
        answer: dict[str, Any]
        if line.strip() == "prepare":
            runs = prepare(peer, specification)
            answer = dict.fromkeys(runs, time.perf_counter() - start)
        else:
            accuracies = runs[line.strip()]()
            answer = {"seconds": time.perf_counter() - start, "accuracies": accuracies.tolist()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
