"""Multilayer perceptrons: Linear, batch norm, activation and dropout for each hidden layer, and a last Linear."""

import functools
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, checks, get_backend
from bnkit.nn import archive
from bnkit.nn.architecture import ACTIVATIONS, checked_sizes, hidden_and_last, norm_options
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.data_format import DataFormat, is_mapped
from bnkit.nn.init import Init, per_replica
from bnkit.nn.layer import Arrays, replace
from bnkit.nn.sequential import Sequential
from bnkit.reference import quiet

_CONFIG = {"sizes", "batch_norm", "activation", "bias", "init", "dropout", "weight_decay", "replicas", "seed", "dtype"}
_BLOCK = 8192  # rows of a forward in inference: the hidden values of a large dataset may exceed the memory


class MLP:
    """A classifier with softmax cross-entropy, or `replicas` of them trained in lockstep as one batched program.

    - sizes: (inputs, hidden, …, classes).
    - batch_norm: whether each hidden layer has batch norm before its activation, or a dictionary of its options.
    - activation: "relu", "sigmoid" or "tanh". bias=False leaves out the bias before batch norm.
    - init: "he", "xavier" or a standard deviation. seed: an int. Both may be one value for each replica.
    - dropout: the probability that a hidden value is dropped in training.
    - weight_decay: λ in the term ½ λ ΣW² of the loss, over every weight matrix.
    - dtype: "float32" or "float64".

    x is (rows, inputs), or (replicas, rows, inputs). t is integer labels (rows,), or weights (rows, classes), or either
    with a leading axis of replicas. Host NumPy arrays move to the backend, and x takes the model's dtype. Losses and
    accuracies are scalars of the backend, or (replicas,) arrays. Replica r equals the single network of its seed and
    init. A network that diverges raises no error: its values become NaN or infinite.

    Neither `params` nor the gradients contain the parameters of frozen layers. A saved file contains them, but does not
    record that they were frozen.

        >>> model, data = bnkit.MLP((64, 100, 10), batch_norm={"decay": 0.99}, seed=1), bnkit.data.load("synthetic")
        >>> loss, grads = model.loss_and_grads(data.x_train[:100], data.t_train[:100])
        >>> sorted(grads)
        ['0.bias', '0.weight', '1.beta', '1.gamma', '3.bias', '3.weight']

    Raises TypeError or ValueError for a wrong argument, BackendError for a backend that cannot run.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        batch_norm: bool | Mapping[str, Any] = True,
        activation: str = "relu",
        bias: bool = True,
        init: Init | Sequence[Init] = "he",
        dropout: float = 0.0,
        weight_decay: float = 0.0,
        replicas: int | None = None,
        seed: int | Sequence[int] = 0,
        backend: str | Backend | None = None,
        dtype: str = "float32",
    ) -> None:
        sizes = checked_sizes(sizes)
        checks.check_choice("activation", activation, tuple(ACTIVATIONS))
        dtype = checks.dtype_argument(dtype, ("float32", "float64"))
        checks.check_real("weight_decay", weight_decay, least=0.0)
        checks.check_real("dropout", dropout, least=0.0, below=1.0)
        checks.check_bool("bias", bias)
        if replicas is not None:
            checks.check_int("replicas", replicas)
            replicas = operator.index(replicas)
        options = norm_options(batch_norm)
        self.backend = get_backend(backend)
        self.sizes, self.dtype, self.replicas, self.weight_decay = sizes, dtype, replicas, float(weight_decay)
        inits, seeds = per_replica("init", init, replicas), per_replica("seed", seed, replicas)
        self.seed: int | list[int] = seeds[0] if replicas is None else seeds
        self.config: dict[str, Any] = {
            "sizes": list(sizes),
            "batch_norm": options or options is not None,
            "activation": activation,
            "bias": bool(bias),
            "init": inits[0] if replicas is None else inits,
            "dropout": float(dropout),
            "weight_decay": self.weight_decay,
            "replicas": replicas,
            "seed": self.seed,
            "dtype": dtype,
        }
        self.network = Sequential(*hidden_and_last(self.config, self.backend))

    def __repr__(self) -> str:
        return f"MLP({', '.join(f'{k}={v!r}' for k, v in self.config.items())}, backend={self.backend.key!r})"

    @property
    def params(self) -> Arrays:
        """A new dictionary of the trained arrays, "0.weight", "0.bias", "1.gamma", …; write into the arrays."""
        return self.network.params

    @property
    def state(self) -> Arrays:
        """A new dictionary of the running statistics, "1.running_mean", …"""
        return self.network.state

    @property
    def norms(self) -> list[BatchNorm]:
        """The BatchNorm layers of `network`."""
        return [layer for layer in self.network.layers if isinstance(layer, BatchNorm)]

    @quiet
    def predict(self, x: Array) -> Array:
        """The logits, (rows, classes) or (replicas, rows, classes), in inference."""
        return self.network.forward(self.prepare_input(x), train=False)[0]

    def loss(self, x: Array, t: Array) -> Array:
        """The mean cross-entropy plus the term of weight decay, in inference."""
        return self.loss_and_accuracy(x, t)[0]

    @quiet
    def accuracy(self, x: Array, t: Array) -> Array:
        """The share of rows whose largest logit is that of the label, in inference; NaN if a logit is NaN."""
        x, t = self.prepare(x, t)
        right: Any = 0.0
        for logits, target in self._inference(x, t):
            right = right + self._right(logits, target)
        return right / x.shape[-2]

    def finite(self) -> Array:
        """Whether all parameters are finite: a bool of shape () or (replicas,).

        >>> bool(bnkit.MLP((4, 8, 3)).finite())
        True
        """
        xp, first = self.backend.xp, int(self.replicas is not None)
        finite = [xp.all(xp.isfinite(p), axis=tuple(range(first, p.ndim))) for p in self.params.values()]
        return functools.reduce(lambda a, b: a & b, finite)

    @quiet
    def loss_and_accuracy(self, x: Array, t: Array) -> tuple[Array, Array]:
        """`loss` and `accuracy` from one pass over the rows, each of shape () or (replicas,).

        >>> model, data = bnkit.MLP((64, 20, 10), seed=0), bnkit.data.load("synthetic")
        >>> loss, accuracy = model.loss_and_accuracy(data.x_test, data.t_test)
        """
        x, t = self.prepare(x, t)
        loss: Any = 0.0
        right: Any = 0.0
        for logits, target in self._inference(x, t):
            loss = loss + self.backend.softmax_cross_entropy(logits, target)[0] * logits.shape[-2]
            right = right + self._right(logits, target)
        rows = x.shape[-2]
        return loss / rows + self._penalty(), right / rows

    def _inference(self, x: Array, t: Array) -> Iterator[tuple[Array, Array]]:
        """The logits and targets of prepared rows, block by block."""
        labels = checks.kind_of(t) == "integer"
        for start in range(0, x.shape[-2], _BLOCK):
            block = slice(start, min(start + _BLOCK, x.shape[-2]))
            yield self.predict(x[..., block, :]), t[..., block] if labels else t[..., block, :]

    def _right(self, logits: Array, t: Array) -> Array:
        """The number of correctly classified rows, float64; NaN if a logit is NaN."""
        xp = self.backend.xp
        labels = xp.astype(t if checks.kind_of(t) == "integer" else xp.argmax(t, axis=-1), xp.int64)
        right = xp.astype(xp.argmax(logits, axis=-1) == labels, xp.float64)
        largest = xp.max(logits, axis=-1)  # NaN if a logit is NaN
        return xp.sum(xp.where(xp.isnan(largest), xp.astype(largest, xp.float64), right), axis=-1)

    @quiet
    def loss_and_grads(self, x: Array, t: Array, *, step: int = 0) -> tuple[Array, Arrays]:
        """The loss of a training step, and the gradients by the names of `params`. The running statistics move.

        (seed, layer, step) decides the dropout. With replicas there is one loss for each.

            >>> model, data = bnkit.MLP((64, 20, 10), seed=0), bnkit.data.load("synthetic")
            >>> optimizer = bnkit.optim.SGD(lr=0.1)
            >>> for step in range(3):
            ...     loss, grads = model.loss_and_grads(data.x_train[:100], data.t_train[:100], step=step)
            ...     optimizer.update(model.params, grads)
        """
        checks.check_int("step", step, least=0)
        x, t = self.prepare(x, t)
        return self.prepared_loss_and_grads(self.prepare_input(x) if is_mapped(x) else x, t, step=step)

    @quiet
    def prepared_loss_and_grads(self, x: Array, t: Array, *, step: int) -> tuple[Array, Arrays]:
        """`loss_and_grads` without checks, for x and t from `prepare`. Rows of t may also be zero."""
        logits, caches = self.network.forward(x, train=True, key=(self.seed, 0, step))
        loss, dlogits = self.backend.softmax_cross_entropy(logits, t)
        grads = self.network.gradients(dlogits, caches)
        if self.weight_decay:
            for name, w in self._weights().items():
                grads[name] += self.weight_decay * w
        return loss + self._penalty(), grads

    def part(self, replicas: slice) -> "MLP":
        """The model of a slice of the replicas, on the same memory: training it trains them in this model."""
        if self.replicas is None:
            raise ValueError("a model without replicas must stay whole, got a slice of them; pass replicas to MLP")
        config = {k: v[replicas] if k in ("init", "seed") else v for k, v in self.config.items()}
        config["replicas"] = replicas.stop - replicas.start
        network = self.network.part(replicas)
        return replace(self, network=network, config=config, seed=config["seed"], replicas=config["replicas"])

    @property
    def data_format(self) -> DataFormat:
        """The shapes and dtypes of x and t."""
        return DataFormat(self.backend, self.dtype, self.sizes[0], self.sizes[-1], self.replicas)

    @quiet
    def prepare(self, x: Array, t: Array) -> tuple[Array, Array]:
        """x and t, checked and moved to the backend, x in the model's dtype. Every method takes them without a copy.

        A memory map stays in its file, and the methods read it block by block.
        """
        x = self.data_format.check_x(x) if is_mapped(x) else self.prepare_input(x)
        if x.shape[-2] == 0:
            raise ValueError(f"x must have at least one row, got {tuple(x.shape)}; pass data")
        return x, self.data_format.prepare_t(t, x.shape[-2])

    @quiet
    def prepare_input(self, x: Array) -> Array:
        """x, checked, on the backend and in the model's dtype."""
        return self.data_format.prepare_x(x)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to `path` as an .npz file, whole or not at all."""
        archive.save(path, "mlp", self.config, self.arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str], backend: str | Backend | None = None) -> "MLP":
        """The network that `save` wrote, on any backend; ValueError for a damaged or foreign file."""
        config, arrays = archive.load(path, "mlp")
        if set(config) != _CONFIG:
            raise ValueError(
                f"{os.fspath(path)} must describe {sorted(_CONFIG)}, got {sorted(config)}; choose another file"
            )
        model = cls(**config, backend=backend)
        model.set_arrays(arrays, source=os.fspath(path))
        return model

    def arrays(self) -> archive.HostArrays:
        """Copies of params and state on the host, as "params/0.weight" and "state/1.count"."""
        named = self._saved()
        return {k: v.copy() if isinstance(v, np.ndarray) else self.backend.to_numpy(v) for k, v in named.items()}

    def set_arrays(self, arrays: Mapping[str, np.ndarray], *, source: str) -> None:
        """Write arrays that `arrays` returned into params and state; ValueError before any write if they do not fit.

        source: names the origin of the arrays in the message.
        """
        archive.write_into(self._saved(), arrays, self.backend, source)

    def _saved(self) -> Arrays:
        """Parameters, also frozen ones, and state, by their names in a file."""
        named = {f"params/{name}": array for name, array in (self.params | self.network.frozen).items()}
        return named | {f"state/{name}": array for name, array in self.state.items()}

    def _weights(self) -> Arrays:
        return {name: p for name, p in self.params.items() if name.endswith(".weight")}

    def _penalty(self) -> Any:
        if not self.weight_decay:
            return 0.0
        xp = self.backend.xp
        squares = [xp.sum(xp.astype(w, xp.float64) ** 2, axis=(-2, -1)) for w in self._weights().values()]
        return 0.5 * self.weight_decay * sum(squares)
