"""A small training in float64 on rows that can be told apart, and a network that notes the batches it sees."""

import numpy as np

from bnkit import MLP, fit, optim
from bnkit.data import Dataset

# The same float64 sums, which a batched product or another library may order differently; training amplifies them.
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}
SETTINGS = {"dropout": 0.3, "weight_decay": 0.01, "batch_norm": {"decay": None}}


def dataset(rows=23, test_rows=11, inputs=5, seed=0) -> Dataset:
    """Every row is another one: its number stands in its first column."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows + test_rows, inputs)).astype(np.float32)
    x[:, 0] = np.arange(rows + test_rows) / (rows + test_rows)
    t = (x[:, 1] > 0) + (x[:, 2] > 0).astype(np.int64)
    return Dataset(x[:rows], t[:rows], x[rows:], t[rows:])


def make(backend, cls=MLP, **options) -> MLP:
    return cls((5, 6, 3), backend=backend, **{"dtype": "float64", **options})


def train(model, data=None, optimizer=None, **options):
    optimizer = optim.Adam(lr=0.01) if optimizer is None else optimizer
    return fit(
        model,
        dataset() if data is None else data,
        optimizer=optimizer,
        **{"epochs": 3, "batch_size": 5, **options},
    )


class Watched(MLP):
    """A network that notes each batch it is trained on: row numbers, step, loss."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen: list[tuple[list[int], int, np.ndarray]] = []

    def loss_and_grads(self, x, t, *, step=0):
        loss, grads = super().loss_and_grads(x, t, step=step)
        rows = np.rint(self.backend.to_numpy(x)[:, 0].astype(np.float64) * 34).astype(int)
        np.testing.assert_array_equal(self.backend.to_numpy(t), dataset().t_train[rows])  # each row with its label
        self.seen.append((rows.tolist(), step, np.array(self.backend.to_numpy(loss))))
        return loss, grads
