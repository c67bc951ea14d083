"""Multilayer perceptrons: Linear, batch norm, activation and dropout for each hidden layer, and a last Linear."""

import copy
import functools
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, checks, dtype_name, get_backend
from bnkit.nn import files as checkpoint
from bnkit.nn import lockstep
from bnkit.nn.activation import ReLU, Sigmoid, Tanh
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.dropout import Dropout
from bnkit.nn.init import Init
from bnkit.nn.layer import Arrays, Layer, per_replica
from bnkit.nn.linear import Linear
from bnkit.nn.sequential import Sequential
from bnkit.reference import quiet

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh}
_CONFIG = {"sizes", "batch_norm", "activation", "bias", "init", "dropout", "weight_decay", "replicas", "seed", "dtype"}
_BLOCK = 8192  # rows of a forward in inference: the hidden values of a whole dataset would not fit everywhere
CLASSIFIES = "MLP classifies, by softmax and cross-entropy, and has no regression loss"
BATCH_NORM_OPTIONS = (
    "decay",
    "eps",
    "correction",
    "affine",
    "track",
    "ghost",
    "renorm",
    "in_place",
    "statistics_dtype",
)


class MLP:
    """A classifier with softmax cross-entropy, or `replicas` of them trained in lockstep as one batched program.

    - sizes: (inputs, hidden, …, classes).
    - batch_norm: whether it stands before each activation, or a dictionary of BatchNorm's options. What is frozen of
      the layers of `network` is in neither `params` nor the gradients; a file holds it and does not tell.
    - activation: "relu", "sigmoid" or "tanh". bias=False leaves the bias out where batch norm follows.
    - init: "he", "xavier", a standard deviation, or one a replica. seed: an int, or one a replica.
    - dropout: the probability that a hidden value is dropped in training.
    - weight_decay: λ in the term ½ λ ΣW² of the loss, over every weight matrix.
    - dtype: "float32" or "float64".

    x is (rows, inputs), or (replicas, rows, inputs); t is integer labels (rows,), or weights (rows, classes), with the
    replicas' axis in front or shared between them. Host NumPy arrays are moved to the backend, floats take the model's
    dtype. Losses and accuracies are scalars of the backend, or (replicas,) arrays; replica r is the single network of
    its seed and init. Nothing of a network that diverges is an error: its values are NaN or infinite.
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
        if not isinstance(sizes, Iterable):
            raise TypeError(f"sizes must be a sequence of ints, got {sizes!r}")
        sizes = tuple(sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes must be (inputs, hidden, …, classes), got {sizes}")
        for n in sizes:
            checks.check_int("sizes", n)
        sizes = tuple(operator.index(n) for n in sizes)
        if sizes[-1] == 1:
            raise ValueError(f"sizes must end with 2 or more classes, got {sizes}: {CLASSIFIES}")
        checks.check_choice("activation", activation, tuple(ACTIVATIONS))
        dtype = checks.dtype_argument(dtype, ("float32", "float64"))
        checks.check_real("weight_decay", weight_decay, least=0.0)
        checks.check_real("dropout", dropout, least=0.0, below=1.0)
        checks.check_bool("bias", bias)
        if replicas is not None:
            checks.check_int("replicas", replicas)
            replicas = operator.index(replicas)
        if not isinstance(batch_norm, (bool, Mapping)):
            raise TypeError(f"batch_norm must be a bool or a dictionary of options, got {batch_norm!r}")
        given = batch_norm if isinstance(batch_norm, Mapping) else {}
        options = {k: _plain(v) for k, v in given.items()}
        if unknown := options.keys() - set(BATCH_NORM_OPTIONS):
            raise ValueError(f"batch_norm takes {', '.join(BATCH_NORM_OPTIONS)}, got {', '.join(sorted(unknown))}")
        normalized = isinstance(batch_norm, Mapping) or batch_norm
        self.backend = get_backend(backend)
        self.sizes, self.dtype, self.replicas, self.weight_decay = sizes, dtype, replicas, float(weight_decay)
        inits, seeds = per_replica("init", init, replicas), per_replica("seed", seed, replicas)
        self.seed: int | list[int] = seeds[0] if replicas is None else seeds
        self.config: dict[str, Any] = {
            "sizes": list(sizes),
            "batch_norm": options or normalized,
            "activation": activation,
            "bias": bool(bias),
            "init": inits[0] if replicas is None else inits,
            "dropout": float(dropout),
            "weight_decay": self.weight_decay,
            "replicas": replicas,
            "seed": self.seed,
            "dtype": dtype,
        }
        layers: list[Layer] = []
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            hidden = i < len(sizes) - 2
            linear: dict[str, Any] = {"init": init, "replicas": replicas, "seed": seed, "layer": i}
            with_bias = bool(bias) or not (hidden and normalized)
            layers.append(Linear(inputs, outputs, bias=with_bias, backend=self.backend, dtype=dtype, **linear))
            if not hidden:
                break
            if normalized:
                features, axis = (outputs, 1) if replicas is None else ((replicas, outputs), (0, 2))
                layers.append(BatchNorm(features, axis=axis, backend=self.backend, dtype=dtype, **options))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(Dropout(dropout))
        self.network = Sequential(*layers)

    def __repr__(self) -> str:
        return f"MLP({', '.join(f'{k}={v!r}' for k, v in self.config.items())}, backend={self.backend.key!r})"

    @property
    def params(self) -> Arrays:
        """A new dictionary of the network's own arrays, "0.weight", "0.bias", "1.gamma", …; write into the arrays."""
        return self.network.params

    @property
    def state(self) -> Arrays:
        """As `params`, of the running statistics."""
        return self.network.state

    @property
    def norms(self) -> list[BatchNorm]:
        """The batch norms among the layers of `network`."""
        return [layer for layer in self.network.layers if isinstance(layer, BatchNorm)]

    @quiet
    def predict(self, x: Array) -> Array:
        """The logits, (rows, classes) or (replicas, rows, classes), in inference."""
        return self.network.forward(self.prepare_input(x), train=False)[0]

    def loss(self, x: Array, t: Array) -> Array:
        """Mean cross-entropy and the weight decay's term, in inference."""
        return self.loss_and_accuracy(x, t)[0]

    @quiet
    def accuracy(self, x: Array, t: Array) -> Array:
        """The share of rows whose largest logit is that of the label, in inference; NaN where any logit is NaN."""
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
        """`loss` and `accuracy` by one pass over the rows, each of shape () or (replicas,).

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
        """How many rows are right, float64; NaN where any logit is."""
        xp = self.backend.xp
        labels = xp.astype(t if checks.kind_of(t) == "integer" else xp.argmax(t, axis=-1), xp.int64)
        right = xp.astype(xp.argmax(logits, axis=-1) == labels, xp.float64)
        largest = xp.max(logits, axis=-1)  # NaN where one of them is
        return xp.sum(xp.where(xp.isnan(largest), xp.astype(largest, xp.float64), right), axis=-1)

    @quiet
    def loss_and_grads(self, x: Array, t: Array, *, step: int = 0) -> tuple[Array, Arrays]:
        """The loss of a training step and the gradients by the names of `params`; moves `state`.

        Dropout is drawn as a function of (seed, layer, step). With replicas each loss is its network's own.
        """
        checks.check_int("step", step, least=0)
        x, t = self.prepare(x, t)
        return self.prepared_loss_and_grads(self.prepare_input(x) if is_mapped(x) else x, t, step=step)

    @quiet
    def prepared_loss_and_grads(self, x: Array, t: Array, *, step: int) -> tuple[Array, Arrays]:
        """`loss_and_grads` without checks: x and t are as `prepare` returns them, but a row of t may be all zero."""
        logits, caches = self.network.forward(x, train=True, key=(self.seed, 0, step))
        loss, dlogits = self.backend.softmax_cross_entropy(logits, t)
        grads = self.network.gradients(dlogits, caches)
        if self.weight_decay:
            for name, w in self._weights().items():
                grads[name] += self.weight_decay * w
        return loss + self._penalty(), grads

    def part(self, replicas: slice) -> "MLP":
        """The model of some of the replicas, on the same memory: to train it is to train them in this one."""
        if self.replicas is None:
            raise ValueError("a model without replicas must stay whole; pass replicas to MLP")
        own = copy.copy(self)
        own.network = lockstep.part(self.network, replicas)
        own.config = {k: v[replicas] if k in ("init", "seed") else v for k, v in self.config.items()}
        own.seed = own.config["seed"]
        own.replicas = own.config["replicas"] = replicas.stop - replicas.start
        return own

    @quiet
    def prepare(self, x: Array, t: Array) -> tuple[Array, Array]:
        """x and t checked and on the model's backend, x in its dtype, as every method takes them without a copy.

        A memory map stays in its file: the methods read it block by block.
        """
        x = self._checked(x) if is_mapped(x) else self.prepare_input(x)
        if x.shape[-2] == 0:
            raise ValueError(f"x must have at least one row, got {tuple(x.shape)}")
        return x, self._target(t, x.shape[-2])

    @quiet
    def prepare_input(self, x: Array) -> Array:
        """x on the backend, in the model's dtype and of a legal shape."""
        x = self._checked(x)
        if isinstance(x, np.ndarray) and self.backend.name != "numpy":
            x = self.backend.asarray(x)
        return self.backend.xp.astype(x, getattr(self.backend.xp, self.dtype), copy=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to `path` as an .npz file, whole or not at all."""
        checkpoint.save(path, "mlp", self.config, self.arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str], backend: str | Backend | None = None) -> "MLP":
        """The network that `save` wrote, on any backend; ValueError where the file is not one."""
        config, arrays = checkpoint.load(path, "mlp")
        if set(config) != _CONFIG:
            raise ValueError(f"{os.fspath(path)} must describe {sorted(_CONFIG)}, got {sorted(config)}")
        model = cls(**config, backend=backend)
        model.set_arrays(arrays, source=os.fspath(path))
        return model

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of params and state on the host, as "params/0.weight" and "state/1.count"."""
        named = self._own()
        return {k: v.copy() if isinstance(v, np.ndarray) else self.backend.to_numpy(v) for k, v in named.items()}

    def set_arrays(self, arrays: Mapping[str, np.ndarray], *, source: str) -> None:
        """Write into params and state what `arrays` returned of a network with the same config.

        ValueError that names `source`, before anything is written, where names, shapes or dtypes differ or a running
        variance is negative. NaN is no error: a network that diverged has such statistics.
        """
        own = self._own()
        checkpoint.check_names(own, arrays, source)
        _check_variances(arrays, source)
        for name, array in own.items():
            checks.check_writeable(name, array, self.backend)
        for name, array in own.items():
            array[...] = arrays[name] if isinstance(array, np.ndarray) else self.backend.asarray(arrays[name])

    def _own(self) -> Arrays:
        """Params, frozen or not, and state, by the names of a file."""
        params = {**self.params, **self.network.frozen}
        return {**_prefixed("params", params), **_prefixed("state", self.state)}

    def _weights(self) -> Arrays:
        return {name: p for name, p in self.params.items() if name.endswith(".weight")}

    def _penalty(self) -> Any:
        if not self.weight_decay:
            return 0.0
        xp = self.backend.xp
        squares = [xp.sum(xp.astype(w, xp.float64) ** 2, axis=(-2, -1)) for w in self._weights().values()]
        return 0.5 * self.weight_decay * sum(squares)

    def _checked(self, x: Array) -> Array:
        """x, a host array or the backend's, of a legal dtype and shape."""
        moved = isinstance(x, np.ndarray) and self.backend.name != "numpy"
        if not moved and (found := checks.common_backend(x=x)) is not self.backend:
            raise TypeError(f"x must be a host NumPy array or on {self.backend.key}, got {found.key}; move it")
        checks.check_data("x", x)
        lead = () if x.ndim < 3 or self.replicas is None else (self.replicas,)
        if x.ndim != 2 + len(lead) or x.shape[-1] != self.sizes[0] or tuple(x.shape[:-2]) != lead:
            also = "" if self.replicas is None else f" or ({self.replicas}, rows, {self.sizes[0]})"
            raise ValueError(f"x must be (rows, {self.sizes[0]}){also}, got {tuple(x.shape)}")
        return x

    def _target(self, t: Array, rows: int) -> Array:
        """t on the backend, for logits of so many rows; a host array's values are checked, a device's are not read."""
        classes, kind = self.sizes[-1], checks.kind_of(t)
        if not hasattr(t, "shape"):
            raise TypeError(f"t must be an array, got {type(t).__name__}; convert it by numpy.asarray")
        if not isinstance(t, np.ndarray) and (backend := checks.one_backend(("t",), (t,))) is not self.backend:
            raise TypeError(f"t must be a host NumPy array or on {self.backend.key}, got {backend.key}; move it")
        if kind == "other":
            raise TypeError(
                f"t must be integer labels or floats (rows, classes), got {dtype_name(t)}; use t.astype(int)"
            )
        expected = (rows,) if kind == "integer" else (rows, classes)
        if tuple(t.shape) != expected and (self.replicas is None or tuple(t.shape) != (self.replicas, *expected)):
            got = f"{dtype_name(t)} {tuple(t.shape)}"
            if rows not in t.shape[:2]:
                got += f": x has {rows} rows and t {t.shape[0] if t.ndim else 'none'}"
            elif kind == "float":
                got += f"; {CLASSIFIES}"
            raise ValueError(f"t must be ({rows},) integer labels or ({rows}, {classes}) floats, got {got}")
        if not isinstance(t, np.ndarray):
            return t
        if kind == "float":
            _check_weights(t)
        elif not (t.min() >= 0 and t.max() < classes):
            raise ValueError(f"t must be labels from 0 to {classes - 1}, got {t.min()} to {t.max()}")
        return self.backend.asarray(t)


def _check_weights(t: np.ndarray) -> None:
    """Finite and at least 0, and of each row some above 0."""
    wide = t if t.dtype.char in "fd" else t.astype(np.float64)
    if not (wide.min() >= 0 and wide.max() < np.inf):  # NaN is neither
        place = _first(~((wide >= 0) & (wide < np.inf)))
        got = f"got {wide[place]} at {list(place)}"
        raise ValueError(f"t must hold finite weights of at least 0, one a class, {got}: {CLASSIFIES}")
    empty = wide.max(axis=-1) == 0
    if empty.any():
        got = f"got a row of zeros at {list(_first(empty))}"
        raise ValueError(f"t must have a weight above 0 in each row, {got}; drop the row: {CLASSIFIES}")


def _first(flags: np.ndarray) -> tuple[int, ...]:
    """Where the first True is."""
    return tuple(int(i) for i in np.argwhere(flags)[0])


def is_mapped(a: Array) -> bool:
    """Whether `a` lies in a file, and may be larger than memory."""
    return isinstance(a, np.memmap)


def _plain(value: Any) -> Any:
    """An option as JSON takes it and gives it back."""
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def _check_variances(arrays: Mapping[str, np.ndarray], source: str) -> None:
    for name, array in arrays.items():
        if name.endswith(".running_var") and np.any(negative := array < 0):
            raise ValueError(
                f"{source}: {name} must be at least 0, got {array[negative][0]:.3g}, which no variance is; "
                f"estimate it by bnkit.update_statistics where the file comes from, and write the file again"
            )


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> Arrays:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
