"""How the experiments train: the batches of each seed, updates, measurements, and what a training resumes from."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bnkit import data as datasets
from bnkit.backend import Array, Backend, get_backend
from bnkit.lab.experiments.plan import Session, State
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.settings import Settings, check
from bnkit.nn import lockstep
from bnkit.nn.init import generator
from bnkit.nn.layer import Arrays
from bnkit.nn.mlp import MLP
from bnkit.nn.statistics import update_statistics
from bnkit.training.optimizers import Optimizer


class Problem(NamedTuple):
    """The data on the backend: the training rows that the settings name, and the test set."""

    backend: Backend
    sizes: tuple[int, ...]  # of a network with the settings' hidden layers
    x: Array
    t: Array
    x_test: Array
    t_test: Array


def load(settings: Settings, batch_sizes: Sequence[int], rows: int | None = None) -> Problem:
    """The problem of `settings`, with the first `rows` training rows or all of them; each batch fits into them."""
    check(settings)
    backend = get_backend(settings.backend)  # a backend that cannot run raises before the data are loaded
    data = datasets.load(settings.data, path=settings.data_dir)
    x, t = data.x_train[:rows], data.t_train[:rows]
    for size in batch_sizes:
        if size > x.shape[0]:
            raise ValueError(f"batch_size must be at most the {x.shape[0]} rows of {settings.data}, got {size}")
    sizes = (x.shape[1], *settings.hidden, data.classes)
    return Problem(backend, sizes, *(backend.asarray(a) for a in (x, t, data.x_test, data.t_test)))


def multiplications(problem: Problem, rows: int, networks: int) -> int:
    """The multiplications of an update of so many rows: forward, for the weights' gradient and for the input's."""
    return 3 * networks * lockstep.multiplications(problem.sizes, rows)


class Batches:
    """The training rows, and draws with replacement from them; replicas of one seed get the same rows."""

    def __init__(self, problem: Problem, seeds: Sequence[int], batch_size: int) -> None:
        self.backend, self.x, self.t, self.batch_size = problem.backend, problem.x, problem.t, batch_size
        unique = sorted(set(seeds))
        self.places = [unique.index(seed) for seed in seeds]
        self.draws = [generator("batches", seed, 0) for seed in unique]

    def draw(self) -> np.ndarray:
        """The rows of the next update, (replicas, batch_size)."""
        return np.stack([draw.choice(self.x.shape[0], self.batch_size) for draw in self.draws])[self.places]

    def next(self) -> tuple[Array, Array]:
        """x (replicas, batch_size, inputs) and t (replicas, batch_size)."""
        chosen = self.backend.asarray(self.draw())
        flat = self.backend.xp.reshape(chosen, (-1,))
        x, t = (self.backend.xp.take(a, flat, axis=0) for a in (self.x, self.t))
        return self.backend.xp.reshape(x, (*chosen.shape, -1)), self.backend.xp.reshape(t, chosen.shape)

    def all_rows(self, classes: int) -> tuple[Array, Array]:
        """All the rows, and weights (replicas, rows, classes) with which their loss is that of the next batch."""
        chosen, rows = self.draw(), self.x.shape[0]
        drawn = np.stack([np.bincount(batch, minlength=rows) for batch in chosen])
        labels = self.backend.to_numpy(self.t)[:, None] == np.arange(classes)
        weights = (rows / self.batch_size) * drawn[..., None] * labels
        return self.x, self.backend.asarray(weights.astype(np.float32))


def set_running_var(model: MLP, value: float) -> None:
    """Start every running variance at `value`; the tutorial starts at 0, and a new model at 1."""
    for name, array in model.state.items():
        if name.endswith("running_var"):
            array[...] = value


def tutorial_dropout(model: MLP, ratio: float) -> dict[str, float]:
    """Make a new model's dropout the tutorial's; the factors for `update` that keep it so.

    The tutorial multiplies by 1 - ratio in inference, where inverted dropout divides by it in training. It is the same
    network where the weights after a dropout are 1 - ratio times as large, and so their steps (1 - ratio)² times.
    """
    after = [name for name in model.params if name.endswith(".weight")][1:]
    for name in after:
        model.params[name][...] *= 1 - ratio
    return dict.fromkeys(after, (1 - ratio) ** 2)


def updater(
    model: MLP,
    optimizer: Optimizer,
    source: Callable[[], tuple[Array, Array]],
    *,
    factors: Mapping[str, float] | None = None,
    gradients: Callable[[Array, Array], Arrays] | None = None,
) -> Callable[[int], None]:
    """A function that makes the update of the number `step`, on x and t from `source`.

    factors: of some gradients, by name. gradients: what computes them in place of the model.
    """

    def update(step: int) -> None:
        x, t = source()
        grads = model.prepared_loss_and_grads(x, t, step=step)[1] if gradients is None else gradients(x, t)
        for name, factor in (factors or {}).items():
            grads[name] *= factor
        optimizer.update(model.params, grads)

    return update


class Course:
    """Networks in training, and all else that their next update depends on: a resumed training has the same bits."""

    def __init__(self, models: Sequence[MLP], draws: Sequence[np.random.Generator] = ()) -> None:
        self.models, self.draws = list(models), draws

    def notes(self) -> dict[str, Any]:
        """What `rebuild` needs, as JSON can hold it."""
        return {}

    def rebuild(self, notes: Mapping[str, Any]) -> None:
        """Bring back the models of `notes`, whose arrays `restore` sets then."""

    def state(self, records: list[Record], updates: int) -> State:
        notes = {
            "records": records,
            "updates": updates,
            "draws": [draw.bit_generator.state for draw in self.draws],
            "course": self.notes(),
        }
        return State(notes, {f"{i}/{k}": a for i, model in enumerate(self.models) for k, a in model.arrays().items()})

    def restore(self, state: State) -> tuple[list[Record], int]:
        """The records and the number of updates of a state, which this course is in then."""
        notes, arrays = state
        self.rebuild(notes["course"])
        for draw, saved in zip(self.draws, notes["draws"], strict=True):
            draw.bit_generator.state = saved
        for i, model in enumerate(self.models):
            prefix = f"{i}/"
            of_model = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
            model.set_arrays(of_model, source="the checkpoint")
        return notes["records"], notes["updates"]


def train(
    course: Course,
    session: Session,
    update: Callable[[int], None],
    stops: Iterable[int],
    measure: Callable[[int], list[Record]],
) -> list[Record]:
    """Train up to each number of updates in `stops`, which rise, and measure there; the records of all measurements."""
    records: list[Record] = []
    done = 0
    if session.resumed is not None:
        records, done = course.restore(session.resumed)
    for stop in stops:
        if stop < done:
            continue  # measured before the interruption
        for step in range(done, stop):
            update(step)
            session.tell(step + 1, functools.partial(course.state, records, step + 1))
        done = stop
        records += measure(stop)
    return records


def measured(model: MLP, x: Array, t: Array) -> tuple[list[float], list[bool]]:
    """Accuracy of each replica in inference, and whether one of its logits was not finite."""
    xp, to_numpy = model.backend.xp, model.backend.to_numpy
    logits = model.predict(x)
    right = xp.mean(xp.astype(xp.argmax(logits, axis=-1) == t, xp.float64), axis=-1)
    finite = xp.all(xp.isfinite(logits), axis=(-2, -1))
    return to_numpy(right).tolist(), [not ok for ok in to_numpy(finite).tolist()]


@contextlib.contextmanager
def statistics_of(model: MLP, x: Array) -> Iterator[None]:
    """Meanwhile the running statistics are those of the rows x; afterwards what they were."""
    xp = model.backend.xp
    before = {
        name: a.copy() if isinstance(a, np.ndarray) else xp.asarray(a, copy=True) for name, a in model.state.items()
    }
    try:
        update_statistics(model, [x])
        yield
    finally:
        for name, array in model.state.items():
            array[...] = before[name]
