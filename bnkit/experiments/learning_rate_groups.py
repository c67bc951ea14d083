"""The networks of the learning-rate experiment: one group, trained in lockstep, for each activation, kind and seed."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bnkit.backend import Array, get_backend
from bnkit.data import Dataset
from bnkit.experiments.records import Record
from bnkit.init import generator
from bnkit.layers import Sequential
from bnkit.mlp import MLP
from bnkit.optim import SGD

PERCENTILES = (15, 50, 85)
Cell = tuple[float, float, str]  # initial scale, learning rate, activation


class Data(NamedTuple):
    """On the backend, for all groups."""

    x: Array
    t: Array
    x_test: Array
    t_test: Array
    classes: int

    @classmethod
    def of(cls, loaded: Dataset, settings: Any) -> "Data":
        backend = get_backend(settings.backend)
        dtype = np.dtype(settings.dtype)
        return cls(
            backend.asarray(loaded.x_train.astype(dtype)),
            backend.asarray(loaded.t_train),
            backend.asarray(loaded.x_test.astype(dtype)),
            backend.asarray(loaded.t_test),
            loaded.classes,
        )


class Group:
    """The networks of one activation, kind and seed; `live` are the cells whose weights are not all NaN."""

    def __init__(self, settings: Any, data: Data, activation: str, batch_norm: bool, seed: int) -> None:
        self.settings, self.data = settings, data
        self.activation, self.batch_norm, self.seed = activation, batch_norm, seed
        self.cells = [cell for cell in settings.cells if cell[2] == activation]
        self.step = 0
        self._take(self.cells)

    @property
    def key(self) -> str:
        return f"{self.activation} {'batch norm' if self.batch_norm else 'plain'}"

    def train(self, until: int) -> Iterator[int]:
        """Train until so many updates are done; yields after each."""
        take, backend = get_backend(self.settings.backend).xp.take, get_backend(self.settings.backend)
        for chosen in _batches(self.seed, self.step, until, self.data.x.shape[0], self.settings.batch_size):
            if self.model is not None:
                rows = backend.asarray(chosen)
                batch = take(self.data.x, rows, axis=0), take(self.data.t, rows, axis=0)
                self.optimizer.update(self.model.params, self.model.loss_and_grads(*batch, step=self.step)[1])
            self.step += 1
            yield self.step

    def measure(self) -> list[Record]:
        """A record for each cell; those that are not trained any more get what their NaN gives."""
        found = {} if self.model is None else dict(zip(self.live, self._measured(self.model), strict=True))
        dead: Record = {"accuracy": self._accuracy_of_nan(), "diverged": True, "p15": None, "p50": None, "p85": None}
        return [
            {
                "scale": cell[0],
                "lr": cell[1],
                "activation": self.activation,
                "batch_norm": self.batch_norm,
                "seed": self.seed,
                "step": self.step,
                **found.get(cell, dead),
            }
            for cell in self.cells
        ]

    def leave_out_the_dead(self) -> None:
        """Go on without the networks whose last weights are all NaN, which no update changes any more."""
        if self.model is None:
            return
        arrays = self.model.arrays()
        last = arrays[f"params/{len(self.model.network.layers) - 1}.weight"]
        alive = ~np.isnan(last).all(axis=(1, 2))
        if not alive.all():
            self._take([cell for cell, ok in zip(self.live, alive, strict=True) if ok])
            self._set({name: a[alive] if a.ndim else a for name, a in arrays.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        return {} if self.model is None else self.model.arrays()

    def restore(self, step: int, live: list[Cell], arrays: dict[str, np.ndarray], *, source: str) -> None:
        """Be as a group was that told its `step`, `live` and `arrays`."""
        self.step = step
        self._take(live)
        self._set(arrays, source=source)

    def _take(self, cells: list[Cell]) -> None:
        """New networks of these cells, of which there may be none."""
        s = self.settings
        self.live = cells
        self.model: MLP | None = None
        if not cells:
            return
        self.optimizer = SGD(lr=[lr for _, lr, _ in cells])
        self.model = MLP(
            (self.data.x.shape[1], *s.hidden, self.data.classes),
            batch_norm={"decay": s.decay, "eps": s.eps, "correction": s.correction} if self.batch_norm else False,
            activation=self.activation,
            bias=not self.batch_norm,
            init=[scale for scale, _, _ in cells],
            replicas=len(cells),
            seed=self.seed,
            backend=s.backend,
            dtype=s.dtype,
        )

    def _set(self, arrays: dict[str, np.ndarray], *, source: str = "the group") -> None:
        if self.model is not None:
            self.model.set_arrays(arrays, source=source)

    def _measured(self, model: MLP) -> list[Record]:
        backend, x, rows = model.backend, self.data.x_test, self.settings.percentile_rows
        accuracies = backend.to_numpy(model.accuracy(x, self.data.t_test))
        logits = model.predict(x[:rows, ...])
        finite = backend.to_numpy(backend.xp.all(backend.xp.isfinite(logits), axis=(-2, -1)))
        layers = model.network.layers
        before = Sequential(*layers[:-2])  # all but the last activation and the last Linear
        inputs = backend.to_numpy(before.forward(x[:rows, ...], train=False)[0])[..., 0]
        return [
            {
                "accuracy": float(accuracy),
                "diverged": not bool(ok),
                **{f"p{p}": _percentile(own, p) for p in PERCENTILES},
            }
            for accuracy, ok, own in zip(accuracies, finite, inputs, strict=True)
        ]

    def _accuracy_of_nan(self) -> float:
        """The largest of logits that are all NaN counts as the first."""
        xp = get_backend(self.settings.backend).xp
        return float(xp.mean(xp.astype(self.data.t_test == 0, xp.float64)))


def _batches(seed: int, start: int, stop: int, rows: int, batch_size: int) -> Iterator[np.ndarray]:
    """The rows of the updates from `start` to `stop`; an epoch leaves out what does not fill a batch."""
    each = rows // batch_size
    epoch, order = -1, np.empty(0, np.int64)
    for step in range(start, stop):
        if step // each != epoch:
            epoch = step // each
            order = generator("order", seed, epoch).permutation(rows)
        first = step % each * batch_size
        yield order[first : first + batch_size]


def _percentile(values: np.ndarray, percent: int) -> float | None:
    return float(np.percentile(values, percent)) if np.isfinite(values).all() else None
