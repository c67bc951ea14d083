"""Does batch norm make learning less dependent on the initial weights? The tutorial's experiment over 16 scales.

Five hidden layers of 100 ReLU units are trained by SGD on 1,000 images, with and without batch norm, from normal
weights of standard deviation 1 down to 0.0001. The 16 networks of a kind and seed train in lockstep as replicas, in as
many parts as the backend does at the same time; they do not meet, so an epoch is done without waiting.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnkit.backend import get_backend
from bnkit.lab.experiments import QUESTIONS, training
from bnkit.lab.experiments.drawing import draw
from bnkit.lab.experiments.findings import (
    KINDS,
    Chart,
    Findings,
    Panel,
    Row,
    Table,
    Verdict,
    diverged_kinds,
    is_published,
    line,
)
from bnkit.lab.experiments.judging import judged
from bnkit.lab.experiments.parts import Told
from bnkit.lab.experiments.records import Record
from bnkit.nn import lockstep
from bnkit.nn.init import generator
from bnkit.nn.mlp import MLP
from bnkit.training.optimizers import SGD

SCALES = tuple(float(s) for s in np.logspace(0, -4, num=16))
SOURCE = "the tutorial's own code, mean of 3 seeds"
# Accuracy at the last record by scale, plain and with batch norm.
PUBLISHED = {
    "1": (0.103, 0.431), "0.541": (0.097, 0.469), "0.293": (0.978, 0.663), "0.158": (0.863, 0.788),
    "0.0858": (0.280, 0.879), "0.0464": (0.140, 0.950), "0.0251": (0.117, 0.990), "0.0136": (0.116, 0.999),
    "0.00736": (0.117, 1.000), "0.00398": (0.117, 0.967), "0.00215": (0.116, 0.912), "0.00117": (0.117, 0.861),
    "0.000631": (0.117, 0.649), "0.000341": (0.116, 0.557), "0.000185": (0.116, 0.525), "0.0001": (0.117, 0.464),
}  # fmt: skip
# Where three seeds of ours and of theirs are apart: what a run of more gave with batch norm, on the machine of docs.
NOTES = {"0.000341": "`bnkit run weight-scale --data mnist --seeds 16` gave 0.517 to 0.779"}
TOLERANCE = 0.08  # three seeds leave out as much of what others would give
WORKS = 0.85  # the mean accuracy from which a scale works
ALIKE = 0.05


@dataclass(frozen=True)
class Settings:
    """What is run; the defaults are the tutorial's, but for the dataset and the number of seeds."""

    data: str = "digits"
    data_dir: str | None = None
    backend: str | None = None
    seeds: int = 3
    epochs: int = 20
    scales: tuple[float, ...] = SCALES
    hidden: tuple[int, ...] = (100,) * 5
    rows: int = 1000
    batch_size: int = 100
    lr: float = 0.01
    dtype: str = "float32"
    # At small scales eps is of the size of the variance, so another eps is another table.
    eps: float = 1e-6
    correction: int = 0
    decay: float = 0.9
    initial_running_var: float = 0.0


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=min(settings.epochs, 5))


def run(settings: Settings, *, on_progress: Callable[[int, int], None] | None = None) -> list[Record]:
    """One record for each seed, kind, scale and epoch: scale, batch_norm, seed, epoch, accuracy, diverged.

    Batches are drawn with replacement; `accuracy` is that on all the rows, in inference, after the first update of the
    epoch, as in the tutorial: epoch e (from 1) comes after (e - 1) * rows / batch_size + 1 updates. `diverged` tells
    that a logit was not finite then. on_progress(done, total) counts updates.
    """
    problem = training.load(settings, [settings.batch_size])
    return train(settings, problem.x, problem.t, problem.sizes[-1], on_progress=on_progress)


def train(
    settings: Settings, x: Any, t: Any, classes: int, *, on_progress: Callable[[int, int], None] | None = None
) -> list[Record]:
    """`run` on rows and labels that are given."""
    backend = get_backend(settings.backend)
    rows = x.shape[0]
    sizes = (x.shape[1], *settings.hidden, classes)
    every = rows // settings.batch_size
    updates = (settings.epochs - 1) * every + 1
    x, t = backend.asarray(x), backend.asarray(t)
    parts = lockstep.cuts(backend, len(settings.scales), lockstep.multiplications(sizes, rows))
    records: list[Record] = []
    for seed in range(settings.seeds):
        told = functools.partial(_tell, on_progress, seed * updates, settings.seeds * updates)
        runs = []
        for part in parts:
            own = dataclasses.replace(settings, scales=settings.scales[part])
            first = part.start == 0  # which stays in this thread, and tells for all
            runs.append(_epochs(own, seed, x, t, sizes, told if first else None))
        for _ in range(settings.epochs):
            for of_parts in zip(*backend.run([functools.partial(next, each) for each in runs]), strict=True):
                records += itertools.chain(*of_parts)
    return records


def _tell(on_progress: Callable[[int, int], None] | None, before: int, total: int, step: int) -> None:
    if on_progress is not None:
        on_progress(before + step, total)


def _epochs(
    settings: Settings, seed: int, x: Any, t: Any, sizes: tuple[int, ...], told: Told | None
) -> Iterator[list[list[Record]]]:
    """Train one part of the scales, and yield each epoch's records, plain and with batch norm; told(updates so far)."""
    backend = get_backend(settings.backend)
    rows, take = x.shape[0], backend.xp.take
    every = rows // settings.batch_size
    models = {kind: _networks(kind, sizes, seed, settings) for kind in (False, True)}
    optimizer = SGD(lr=settings.lr)
    draws = generator("batches", seed, 0)
    for epoch in range(settings.epochs):
        for step in range(max((epoch - 1) * every + 1, 0), epoch * every + 1):
            chosen = backend.asarray(draws.choice(rows, settings.batch_size))
            batch = take(x, chosen, axis=0), take(t, chosen, axis=0)
            for model in models.values():
                optimizer.update(model.params, model.loss_and_grads(*batch, step=step)[1])
            if told is not None:
                told(step + 1)
        yield [_measure(model, x, t, kind, seed, epoch + 1, settings) for kind, model in models.items()]


def final(records: list[Record]) -> dict[float, dict[bool, tuple[float, float, float, int]]]:
    """By scale and kind, at the last epoch: mean, lowest and highest accuracy over the seeds, how many diverged."""
    last = max(r["epoch"] for r in records)
    table: dict[float, dict[bool, tuple[float, float, float, int]]] = {}
    for scale in sorted({r["scale"] for r in records}, reverse=True):
        table[scale] = {}
        for kind in (False, True):
            rows = [r for r in records if (r["scale"], r["batch_norm"], r["epoch"]) == (scale, kind, last)]
            accuracies = [r["accuracy"] for r in rows]
            spread = (float(np.mean(accuracies)), min(accuracies), max(accuracies))
            table[scale][kind] = (*spread, sum(r["diverged"] for r in rows))
    return table


@judged
def findings(records: list[Record], settings: Settings) -> Findings:
    """The tutorial's figure and table, and what they say of its claim."""
    table = final(records)
    rows = []
    for scale, kinds in table.items():
        figures = PUBLISHED.get(f"{scale:.3g}", ()) if is_published(settings) else ()
        for index, (kind, (mean, low, high, diverged)) in enumerate(kinds.items()):
            published = figures[index] if figures else None
            note = f"{diverged} of {settings.seeds} diverged" if diverged else ""
            found = Row((f"{scale:.3g}",), KINDS[kind], published, mean, low, high, note)
            if kind and not found.agrees(TOLERANCE) and not note:
                found = dataclasses.replace(found, note=NOTES.get(f"{scale:.3g}", ""))
            rows.append(found)
    over = "" if settings.seeds == 1 else f", mean and range over {settings.seeds} seeds"
    shown = Table(f"accuracy on the training images{over}", ("W",), tuple(rows), SOURCE, TOLERANCE)
    return Findings(QUESTIONS["weight-scale"], charts(records), (shown,), _verdicts(table))


def charts(records: list[Record]) -> tuple[Chart, ...]:
    """The tutorial's figure: a grid of accuracy against epochs, one panel a scale."""
    panels = []
    seeds = len({r["seed"] for r in records})
    last = max(r["epoch"] for r in records)
    for scale in sorted({r["scale"] for r in records}, reverse=True):
        own = [r for r in records if r["scale"] == scale]
        both = [(KINDS[kind], [r for r in own if r["batch_norm"] == kind]) for kind in (True, False)]
        lines = tuple(line(name, name, of_kind, "epoch", "accuracy") for name, of_kind in both)
        panels.append(Panel(f"W = {scale:.3g}", lines, diverged_kinds([r for r in own if r["epoch"] == last])))
    title = f"Standard deviation W of the initial weights; mean of {seeds} seeds, the band spans them"
    return (Chart(title, "epoch", "accuracy on the training images", tuple(panels), y_range=(0.0, 1.0)),)


def plot(records: list[Record]) -> Any:
    return draw(charts(records))


def _verdicts(table: dict[float, dict[bool, tuple[float, float, float, int]]]) -> tuple[Verdict, ...]:
    works = {kind: [s for s, kinds in table.items() if kinds[kind][0] >= WORKS] for kind in (False, True)}
    plain, norm = len(works[False]), len(works[True])
    ahead = [s for s, kinds in table.items() if kinds[True][1] > kinds[False][2]]
    behind = [s for s, kinds in table.items() if kinds[True][2] < kinds[False][1]]
    means = [kinds[True][0] for kinds in table.values()]
    return (
        Verdict(
            "Batch norm makes learning less dependent on the initial weights",
            "holds" if norm > plain else "depends" if norm == plain else "does not hold",
            f"holds where more scales reach a mean accuracy of {WORKS} with batch norm than without, depends at a tie.",
            f"{norm} of {len(table)} scales reach it with batch norm, {plain} without.",
        ),
        Verdict(
            "With batch norm the scale of the initial weights does not matter",
            "holds" if max(means) - min(means) <= ALIKE else "does not hold",
            f"holds where the best and the worst scale's mean accuracy with batch norm are at most {ALIKE} apart.",
            f"They are {max(means):.3f} and {min(means):.3f}.",
        ),
        Verdict(
            "Batch norm learns better at every scale",
            "holds" if len(ahead) == len(table) else "depends" if ahead else "does not hold",
            "holds where batch norm's seeds are all above the plain ones' at every scale, depends where at some.",
            f"Above at {len(ahead)} of {len(table)} scales, below at {_listed(behind)}.",
        ),
    )


def _listed(scales: list[float]) -> str:
    return ", ".join(f"W = {s:.3g}" for s in scales) or "none"


def _networks(batch_norm: bool, sizes: tuple[int, ...], seed: int, settings: Settings) -> MLP:
    """One network a scale."""
    norm = {"eps": settings.eps, "correction": settings.correction, "decay": settings.decay}
    model = MLP(
        sizes,
        batch_norm=norm if batch_norm else False,
        init=settings.scales,
        replicas=len(settings.scales),
        seed=seed,
        backend=settings.backend,
        dtype=settings.dtype,
    )
    for name, array in model.state.items():
        if name.endswith("running_var"):
            array[...] = settings.initial_running_var
    return model


def _measure(model: MLP, x: Any, t: Any, kind: bool, seed: int, epoch: int, settings: Settings) -> list[Record]:
    accuracies, diverged = training.measured(model, x, t)
    return [
        {
            "scale": scale,
            "batch_norm": kind,
            "seed": seed,
            "epoch": epoch,
            "accuracy": accuracies[i],
            "diverged": diverged[i],
        }
        for i, scale in enumerate(settings.scales)
    ]
