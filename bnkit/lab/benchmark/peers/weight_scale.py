"""The weight-scale experiment of one seed in other libraries: its inputs, and the accuracies to return."""

import dataclasses
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bnkit import data
from bnkit.lab.experiments import weight_scale
from bnkit.nn.init import generator

# Returns the last accuracies, of shape (2, scales): without and with batch norm.
Run = Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Problem:
    """The inputs of every implementation: data, initial weights before scaling, and batches."""

    x: np.ndarray
    t: np.ndarray
    classes: int
    normals: list[np.ndarray]
    batches: np.ndarray  # (updates, batch) row numbers
    every: int  # accuracies follow updates 1, 1 + every, 1 + 2 * every, …
    settings: weight_scale.Settings


def problem(settings: weight_scale.Settings) -> Problem:
    """The experiment's seed 0, with the weights and batches that bnkit draws."""
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
    """Calls of the whole experiment, by name. specification: fields of the experiment's `Settings`."""
    fields = {name: value for name, value in specification.items() if name != "workload"}
    work = problem(weight_scale.Settings(**fields))
    module = importlib.import_module(f"bnkit.lab.benchmark.peers.weight_scale_{peer.replace('-', '_')}")
    runs: dict[str, Run] = module.prepare(work)
    return runs
