"""The networks of the weight-scale experiment: 16 scales train in lockstep, plain and with batch norm.

The replicas do not meet, so on a CPU two parts train half of the scales each.
"""

import contextlib
import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter

from bnkit.backend import Array, get_backend
from bnkit.lab.experiments import runner, training
from bnkit.lab.experiments.plan import Part, Plan, Session
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.training import Problem
from bnkit.lab.experiments.weight_scale.settings import Settings
from bnkit.nn.init import generator
from bnkit.nn.mlp import MLP
from bnkit.training.optimizers import SGD

_ORDER = itemgetter("seed", "epoch", "batch_norm")


def plan(settings: Settings) -> Plan:
    """A part is half of the scales of a seed, or all of them.

    One record for each seed, kind, scale and epoch: scale, batch_norm, seed, epoch, accuracy, diverged. Batches are
    drawn with replacement; `accuracy` is that on all the rows, in inference, after the first update of the epoch, as in
    the tutorial: epoch e (from 1) comes after (e - 1) * rows / batch_size + 1 updates. `diverged` tells that a logit
    was not finite then.
    """
    return _plan(settings, training.load(settings, [settings.batch_size], settings.rows))


def train(settings: Settings, x: Array, t: Array, classes: int) -> list[Record]:
    """The records on these rows and labels, for the benchmark: in threads of this process."""
    backend = get_backend(settings.backend)
    x, t = backend.asarray(x), backend.asarray(t)
    problem = Problem(backend, (x.shape[1], *settings.hidden, classes), x, t, x, t)
    several = backend.threads > 1
    with ThreadPoolExecutor(backend.threads) if several else contextlib.nullcontext() as threads:
        return runner.run(functools.partial(_plan, problem=problem), settings, executor=threads)


def _plan(settings: Settings, problem: Problem) -> Plan:
    rows = problem.x.shape[0]
    updates = (settings.epochs - 1) * (rows // settings.batch_size) + 1
    middle = len(settings.scales) // 2 if problem.backend.array_module == "numpy" else 0
    halves = settings.scales[:middle], settings.scales[middle:]
    parts = []
    for seed in range(settings.seeds):
        for scales in filter(None, halves):
            effort = updates * training.multiplications(problem, settings.batch_size, 2 * len(scales))
            work = functools.partial(_train, dataclasses.replace(settings, scales=scales), problem, seed)
            parts.append(Part(f"seed {seed}, {', '.join(map(repr, scales))}", updates, effort, work))
    return Plan(problem.backend, problem[2:], parts, _ORDER)


def _train(settings: Settings, problem: Problem, seed: int, session: Session) -> list[Record]:
    """Train the settings' scales; plain and with batch norm on the same batches."""
    backend, x, t = problem.backend, problem.x, problem.t
    rows, take = x.shape[0], backend.xp.take
    models = {kind: _networks(problem, kind, seed, settings) for kind in (False, True)}
    optimizer = SGD(lr=settings.lr)
    draws = generator("batches", seed, 0)

    def update(step: int) -> None:
        chosen = backend.asarray(draws.choice(rows, settings.batch_size))
        batch = take(x, chosen, axis=0), take(t, chosen, axis=0)
        for model in models.values():
            optimizer.update(model.params, model.prepared_loss_and_grads(*batch, step=step)[1])

    def measure(updates: int) -> list[Record]:
        epoch = (updates - 1) // every + 1
        return [r for kind, model in models.items() for r in _measured(model, problem, kind, seed, epoch, settings)]

    every = rows // settings.batch_size
    stops = (epoch * every + 1 for epoch in range(settings.epochs))
    return training.train(training.Course(list(models.values()), [draws]), session, update, stops, measure)


def _networks(problem: Problem, batch_norm: bool, seed: int, settings: Settings) -> MLP:
    """One network a scale."""
    model = MLP(
        problem.sizes,
        batch_norm=settings.norm(batch_norm),
        init=settings.scales,
        replicas=len(settings.scales),
        seed=seed,
        backend=problem.backend,
        dtype=settings.dtype,
    )
    training.set_running_var(model, settings.initial_running_var)
    return model


def _measured(model: MLP, problem: Problem, kind: bool, seed: int, epoch: int, settings: Settings) -> list[Record]:
    accuracies, diverged = training.measured(model, problem.x, problem.t)
    head = {"batch_norm": kind, "seed": seed, "epoch": epoch}
    return [
        {"scale": scale, **head, "accuracy": accuracy, "diverged": bad}
        for scale, accuracy, bad in zip(settings.scales, accuracies, diverged, strict=True)
    ]
