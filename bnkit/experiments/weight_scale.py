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

from bnkit import checks, data, lockstep
from bnkit.backend import get_backend
from bnkit.experiments.records import Record
from bnkit.init import generator
from bnkit.mlp import MLP
from bnkit.optim import SGD

SCALES = tuple(float(s) for s in np.logspace(0, -4, num=16))
# Okabe & Ito's blue and vermilion, which colour-blind readers can tell apart; the dashes serve the rest.
STYLES = {True: ("#0072B2", "-", "batch norm"), False: ("#D55E00", "--", "plain")}


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


def run(settings: Settings, *, on_progress: Callable[[int, int], None] | None = None) -> list[Record]:
    """One record for each seed, kind, scale and epoch: scale, batch_norm, seed, epoch, accuracy, diverged.

    Batches are drawn with replacement; `accuracy` is that on all the rows, in inference, after the first update of the
    epoch, as in the tutorial: epoch e (from 1) comes after (e - 1) * rows / batch_size + 1 updates. `diverged` tells
    that a logit was not finite then. on_progress(done, total) counts updates.
    """
    for name in ("seeds", "epochs", "rows", "batch_size"):
        checks.check_int(name, getattr(settings, name))
    get_backend(settings.backend)  # one that cannot run says so before the data are loaded
    loaded = data.load(settings.data, path=settings.data_dir)
    x, t = loaded.x_train[: settings.rows], loaded.t_train[: settings.rows]
    if settings.batch_size > x.shape[0]:
        raise ValueError(
            f"batch_size must be at most the {x.shape[0]} rows of {settings.data}, got {settings.batch_size}"
        )
    return train(settings, x, t, loaded.classes, on_progress=on_progress)


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
    products = rows * sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))
    parts = lockstep.cuts(backend, len(settings.scales), products)
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
    settings: Settings, seed: int, x: Any, t: Any, sizes: tuple[int, ...], told: Callable[[int], None] | None
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


def plot(records: list[Record]) -> Any:
    """The tutorial's figure: a grid of accuracy against epochs, one panel a scale; the band spans the seeds."""
    from matplotlib.figure import Figure

    scales = sorted({r["scale"] for r in records}, reverse=True)
    columns = min(4, len(scales))
    lines = -(-len(scales) // columns)
    seeds = len({r["seed"] for r in records})
    figure = Figure(figsize=(3.0 * columns, 2.3 * lines + 1.1), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for panel in axes.flat[len(scales) :]:
        panel.set_visible(False)
    for panel, scale in zip(axes.flat, scales, strict=False):
        panel.set_title(f"W = {scale:.3g}", fontsize=11)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
        for kind, (colour, dashes, label) in STYLES.items():
            own = [r for r in records if r["scale"] == scale and r["batch_norm"] == kind]
            epochs = sorted({r["epoch"] for r in own})
            values = np.array([[r["accuracy"] for r in own if r["epoch"] == e] for e in epochs])
            panel.plot(epochs, values.mean(axis=1), color=colour, linestyle=dashes, linewidth=1.8, label=label)
            panel.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.2, linewidth=0)
            diverged = sum(r["diverged"] for r in own if r["epoch"] == epochs[-1])
            if diverged:
                note = f"{label}: {diverged} of {seeds} diverged"
                height = 0.9 if kind else 0.17
                panel.text(0.97, height, note, color=colour, fontsize=9, ha="right", transform=panel.transAxes)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=11)
    figure.supxlabel("epoch")
    figure.supylabel(f"accuracy on the training images (mean of {seeds} seeds; the band spans them)", fontsize=11)
    return figure


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
    xp, to_numpy = model.backend.xp, model.backend.to_numpy
    logits = model.predict(x)
    accuracies = to_numpy(xp.mean(xp.astype(xp.argmax(logits, axis=-1) == t, xp.float64), axis=-1))
    finite = to_numpy(xp.all(xp.isfinite(logits), axis=(-2, -1)))
    return [
        {
            "scale": scale,
            "batch_norm": kind,
            "seed": seed,
            "epoch": epoch,
            "accuracy": float(accuracy),
            "diverged": not bool(ok),
        }
        for scale, accuracy, ok in zip(settings.scales, accuracies, finite, strict=True)
    ]
