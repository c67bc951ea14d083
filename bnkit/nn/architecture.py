"""The layers of an MLP, and the checks of its sizes and batch-norm options."""

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bnkit.backend import Backend, checks
from bnkit.nn.activation import ReLU, Sigmoid, Tanh
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.data_format import CLASSIFIES
from bnkit.nn.dropout import Dropout
from bnkit.nn.layer import Layer
from bnkit.nn.linear import Linear

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh}
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


def hidden_and_last(config: Mapping[str, Any], backend: Backend) -> list[Layer]:
    """The layers of an MLP with this `config`: those of each hidden layer, and the last Linear."""
    sizes, replicas, norm = config["sizes"], config["replicas"], config["batch_norm"]
    shared = {"backend": backend, "dtype": config["dtype"]}
    options = norm if isinstance(norm, dict) else {}
    layers: list[Layer] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        hidden = i < len(sizes) - 2
        bias = config["bias"] or not (hidden and norm)
        draws = {"init": config["init"], "seed": config["seed"], "layer": i}
        layers.append(Linear(inputs, outputs, bias=bias, replicas=replicas, **draws, **shared))
        if hidden and norm:
            features, axis = (outputs, 1) if replicas is None else ((replicas, outputs), (0, 2))
            layers.append(BatchNorm(features, axis=axis, **options, **shared))
        if hidden:
            layers.append(ACTIVATIONS[config["activation"]]())
        if hidden and config["dropout"]:
            layers.append(Dropout(config["dropout"]))
    return layers


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(sizes, Iterable):
        raise TypeError(f"sizes must be a sequence of ints, got {sizes!r}; pass (inputs, hidden, …, classes)")
    sizes = tuple(sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes must be (inputs, hidden, …, classes), got {sizes}; pass two or more")
    for n in sizes:
        checks.check_int("sizes", n)
    sizes = tuple(operator.index(n) for n in sizes)
    if sizes[-1] == 1:
        raise ValueError(f"sizes must end with 2 or more classes, got {sizes}: {CLASSIFIES}")
    return sizes


def norm_options(batch_norm: bool | Mapping[str, Any]) -> dict[str, Any] | None:
    """The options of each BatchNorm as JSON values; None for a network without batch norm."""
    if isinstance(batch_norm, bool):
        return {} if batch_norm else None
    if not isinstance(batch_norm, Mapping):
        raise TypeError(f"batch_norm must be a bool or a dictionary of options, got {batch_norm!r}; pass True")
    if unknown := batch_norm.keys() - set(BATCH_NORM_OPTIONS):
        raise ValueError(f"batch_norm takes {', '.join(BATCH_NORM_OPTIONS)}, got {', '.join(sorted(unknown))}")
    return {name: _plain(value) for name, value in batch_norm.items()}


def _plain(value: Any) -> Any:
    """An option as a value that JSON returns unchanged."""
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value
