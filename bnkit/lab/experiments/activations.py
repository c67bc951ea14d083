"""Does batch norm keep every layer's activations spread? The tutorial's histograms, before and during training.

Five hidden layers of 100 units see 1,000 images: from normal weights of standard deviation 1 and 0.01, Xavier's and
He's, through sigmoid, tanh and ReLU, with and without batch norm. The networks of one activation and kind, for each
initial scale and seed, train in lockstep as replicas. Batch norm uses the statistics of all the images that are shown.

The tutorial judges by the histogram of all values of a layer. That looks spread also where each unit has a value of its
own and says nothing of the image; so the verdicts count the units that vary from image to image.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnkit.backend import Array, checks
from bnkit.lab.experiments import activations_findings, parts, training
from bnkit.lab.experiments.activations_findings import EDGES
from bnkit.lab.experiments.drawing import DENSE, draw
from bnkit.lab.experiments.findings import Findings
from bnkit.lab.experiments.judging import judged
from bnkit.lab.experiments.parts import Told
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.activation import ReLU, Sigmoid, Tanh
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.mlp import MLP
from bnkit.norm.batch_norm import batch_norm
from bnkit.reference import quiet
from bnkit.training.optimizers import SGD

ENDS = {"sigmoid": (0.02, 0.98), "tanh": (-0.98, 0.98), "relu": (-np.inf, np.inf)}  # beyond them a value is saturated


@dataclass(frozen=True)
class Settings:
    """What is run. epochs: of rows / batch_size updates; measured: after which, besides at the start and the end."""

    data: str = "digits"
    data_dir: str | None = None
    backend: str | None = None
    seeds: int = 3
    epochs: int = 20
    measured: tuple[int, ...] = (1, 5)
    inits: tuple[str | float, ...] = (1.0, 0.01, "xavier", "he")
    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu")
    hidden: tuple[int, ...] = (100,) * 5
    rows: int = 1000
    batch_size: int = 100
    lr: float = 0.01
    bins: int = 30
    least_std: float = 0.05  # over the rows, from which a unit is alive
    most_std: float = 10.0
    dtype: str = "float32"
    eps: float = 1e-6
    correction: int = 0
    decay: float = 0.9


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=min(settings.epochs, 3))


def run(settings: Settings, *, on_progress: Callable[[int, int], None] | None = None) -> list[Record]:
    """One record for each activation, kind, initial scale, seed, measurement and hidden layer (from 1).

    activation, batch_norm, init, seed, epoch, layer; mean and std over rows and units, unit_std (the mean over units of
    the std over rows), None where not finite; saturated (share of values), alive (share of units whose std over the
    rows lies between least_std and most_std and of whose values less than half are saturated), counts of the histogram;
    accuracy on the rows in inference. on_progress(done, total) counts updates.
    """
    return parts.run(plan, settings, on_progress=on_progress)


def plan(settings: Settings) -> parts.Plan:
    """The networks of an activation and kind are a part."""
    problem = training.load(settings, [settings.batch_size])
    for name in settings.activations:
        checks.check_choice("activations", name, tuple(EDGES))
    updates = settings.epochs * (problem.x.shape[0] // settings.batch_size)
    effort = updates * training.multiplications(problem, settings.batch_size, len(settings.inits) * settings.seeds)
    pieces = [
        parts.Part(f"{name} {kind}", updates, effort, functools.partial(_train, settings, problem, name, kind))
        for name in settings.activations
        for kind in (False, True)
    ]
    return parts.Plan(problem.backend, problem[2:], pieces)


@judged
def findings(records: list[Record], settings: Settings) -> Findings:
    return activations_findings.findings(records)


def plot(records: list[Record]) -> Any:
    """The course, and below it a line for each activation: before training beside the end."""
    course, *histograms = activations_findings.charts(records)
    return draw([course, *zip(histograms[::2], histograms[1::2], strict=True)], DENSE)


def _train(settings: Settings, problem: Problem, activation: str, kind: bool, told: Told) -> list[Record]:
    """Train the networks of one activation and kind; the records of each measurement."""
    replicas = [(init, seed) for init in settings.inits for seed in range(settings.seeds)]
    norm = {"eps": settings.eps, "correction": settings.correction, "decay": settings.decay}
    seeds = [seed for _, seed in replicas]
    model = MLP(
        problem.sizes,
        batch_norm=norm if kind else False,
        activation=activation,
        init=[init for init, _ in replicas],
        replicas=len(replicas),
        seed=seeds,
        backend=problem.backend,
        dtype=settings.dtype,
    )
    optimizer = SGD(lr=settings.lr)
    batches = training.Batches(problem, seeds, settings.batch_size)
    every, done = problem.x.shape[0] // settings.batch_size, 0
    records = []
    for epoch in sorted({0, settings.epochs, *(e for e in settings.measured if e < settings.epochs)}):
        training.update(model, optimizer, batches.next, range(done, epoch * every), told)
        done = epoch * every
        accuracies, _ = training.measured(model, problem.x, problem.t)
        for layer, values in enumerate(hidden_values(model, problem.x), 1):
            head = {"activation": activation, "batch_norm": kind, "epoch": epoch, "layer": layer}
            shown = _described(problem.backend.to_numpy(values).astype(np.float64), activation, settings)
            for i, (init, seed) in enumerate(replicas):
                record = head | {"init": init, "seed": seed, "accuracy": accuracies[i]}
                records.append(record | {name: value[i] for name, value in shown.items()})
    return records


@quiet
def hidden_values(model: MLP, x: Array) -> list[Array]:
    """What each hidden layer's activation returns, (replicas, rows, units), by the statistics of x."""
    found = []
    for layer in model.network.layers:
        if isinstance(layer, BatchNorm):
            gamma, beta = layer.params["gamma"], layer.params["beta"]
            x, _ = batch_norm(x, gamma, beta, train=True, axis=layer.axis, eps=layer.eps)
        else:
            x, _ = layer.forward(x, train=False)
        if isinstance(layer, (ReLU, Sigmoid, Tanh)):
            found.append(x)
    return found


@quiet
def _described(values: np.ndarray, activation: str, settings: Settings) -> dict[str, list[Any]]:
    """The numbers of a record, a list with one of each replica; values: (replicas, rows, units)."""
    low, high = ENDS[activation]
    saturated = ~((values >= low) & (values <= high))
    stds = values.std(axis=1)
    spread = (stds >= settings.least_std) & (stds <= settings.most_std)
    alive = spread & (saturated.mean(axis=1) < 0.5)
    replicas, bins = len(values), settings.bins
    start, stop = EDGES[activation]
    inside = np.nan_to_num((values - start) / (stop - start) * bins, nan=bins, posinf=bins, neginf=0)
    places = np.clip(inside, 0, bins - 1).astype(np.int64) + bins * np.arange(replicas)[:, None, None]
    counts = np.bincount(places.ravel(), minlength=replicas * bins).reshape(replicas, bins)
    return {
        "mean": _finite(values.mean(axis=(1, 2))),
        "std": _finite(values.std(axis=(1, 2))),
        "unit_std": _finite(stds.mean(axis=1)),
        "saturated": saturated.mean(axis=(1, 2)).tolist(),
        "alive": alive.mean(axis=1).tolist(),
        "counts": counts.tolist(),
    }


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
