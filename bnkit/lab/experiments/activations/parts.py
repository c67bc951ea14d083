"""The networks of the activations experiment: those of one activation and kind train in lockstep as replicas."""

import functools
from typing import Any

import numpy as np

from bnkit.backend import Array
from bnkit.lab.experiments import training
from bnkit.lab.experiments.activations.settings import EDGES, Settings
from bnkit.lab.experiments.plan import Part, Plan, Session
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.nn.activation import ReLU, Sigmoid, Tanh
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.mlp import MLP
from bnkit.norm.batch_norm import batch_norm
from bnkit.reference import quiet
from bnkit.training.optimizers import SGD

ENDS = {"sigmoid": (0.02, 0.98), "tanh": (-0.98, 0.98), "relu": (-np.inf, np.inf)}  # beyond them a value is saturated


def plan(settings: Settings) -> Plan:
    """The networks of an activation and kind are a part.

    One record for each activation, kind, initial scale, seed, measurement and hidden layer (from 1): activation,
    batch_norm, init, seed, epoch, layer; mean and std over rows and units, unit_std (the mean over units of the std
    over rows), None where not finite; saturated (share of values), alive (share of units whose std over the rows lies
    between least_std and most_std and of whose values less than half are saturated), counts of the histogram; accuracy
    on the rows in inference.
    """
    problem = training.load(settings, [settings.batch_size], settings.rows)
    updates = settings.epochs * (problem.x.shape[0] // settings.batch_size)
    effort = updates * training.multiplications(problem, settings.batch_size, len(settings.inits) * settings.seeds)
    parts = [
        Part(f"{name} {kind}", updates, effort, functools.partial(_train, settings, problem, name, kind))
        for name in settings.activations
        for kind in (False, True)
    ]
    return Plan(problem.backend, problem[2:], parts)


def _train(settings: Settings, problem: Problem, activation: str, kind: bool, session: Session) -> list[Record]:
    """Train the networks of one activation and kind; the records of each measurement."""
    replicas = [(init, seed) for init in settings.inits for seed in range(settings.seeds)]
    seeds = [seed for _, seed in replicas]
    model = MLP(
        problem.sizes,
        batch_norm=settings.norm(kind),
        activation=activation,
        init=[init for init, _ in replicas],
        replicas=len(replicas),
        seed=seeds,
        backend=problem.backend,
        dtype=settings.dtype,
    )
    batches = training.Batches(problem, seeds, settings.batch_size)
    every = problem.x.shape[0] // settings.batch_size
    epochs = sorted({0, settings.epochs, *(e for e in settings.measured if e < settings.epochs)})

    def measure(updates: int) -> list[Record]:
        accuracies, _ = training.measured(model, problem.x, problem.t)
        records = []
        for layer, values in enumerate(hidden_values(model, problem.x), 1):
            head = {"activation": activation, "batch_norm": kind, "epoch": updates // every, "layer": layer}
            described = _described(problem.backend.to_numpy(values).astype(np.float64), activation, settings)
            for i, (init, seed) in enumerate(replicas):
                record = head | {"init": init, "seed": seed, "accuracy": accuracies[i]}
                records.append(record | {name: value[i] for name, value in described.items()})
        return records

    update = training.updater(model, SGD(lr=settings.lr), batches.next)
    course = training.Course([model], batches.draws)
    return training.train(course, session, update, [epoch * every for epoch in epochs], measure)


@quiet
def hidden_values(model: MLP, x: Array) -> list[Array]:
    """The output of each hidden layer's activation, (replicas, rows, units), by the statistics of x."""
    outputs = []
    for layer in model.network.layers:
        if isinstance(layer, BatchNorm):
            gamma, beta = layer.params["gamma"], layer.params["beta"]
            x, _ = batch_norm(x, gamma, beta, train=True, axis=layer.axis, eps=layer.eps)
        else:
            x, _ = layer.forward(x, train=False)
        if isinstance(layer, (ReLU, Sigmoid, Tanh)):
            outputs.append(x)
    return outputs


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
