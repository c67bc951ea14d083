"""Initial weights. NumPy draws them from (seed, layer), so that a seed is the same network on every backend."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bnkit.backend import checks

Init = str | float
PURPOSES = ("weights", "order", "batches")


def generator(purpose: str, seed: int, index: int) -> np.random.Generator:
    """The generator of a layer's "weights", of an epoch's "order", or of an experiment's "batches".

    Its stream is a function of the three arguments. Streams never coincide, because SeedSequence keeps the spawn key
    separate from the entropy.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), index)))


def standard_deviation(init: Init, fan_in: int) -> float:
    """The standard deviation of the initial weights of a layer with `fan_in` inputs.

    init: "he" for √(2 / fan_in) (He et al. 2015, equation 10), "xavier" for √(1 / fan_in) (Glorot & Bengio 2010
    without the fan-out, as in Caffe and the tutorial), or the number itself.
    """
    if init == "he":
        return float(np.sqrt(2.0 / fan_in))
    if init == "xavier":
        return float(np.sqrt(1.0 / fan_in))
    if isinstance(init, str):
        raise ValueError(f"init must be 'he', 'xavier' or a standard deviation, got {init!r}")
    checks.check_real("init", init, least=0.0)
    return float(init)


def per_replica(name: str, value: Any, replicas: int | None) -> list[Any]:
    """A list with one value for each replica: `value` repeated, or the entries of a sequence or 1-D array.

    Without replicas the list has one value. NumPy scalars become Python scalars. The values are not checked.
    """
    if replicas is not None:
        checks.check_int("replicas", replicas)
    if hasattr(value, "tolist"):  # a NumPy array or scalar
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * (1 if replicas is None else replicas)
    values = [v.item() if hasattr(v, "item") else v for v in value]
    if replicas is None:
        raise ValueError(f"{name} must be one value without replicas, got {len(values)}; pass replicas={len(values)}")
    if len(values) != replicas:
        raise ValueError(f"{name} must be one value, or one for each of {replicas} replicas, got {len(values)}")
    return values


@np.errstate(over="ignore")  # a standard deviation may exceed the dtype
def draw_weights(
    fan_in: int, fan_out: int, *, inits: Sequence[Init], seeds: Sequence[int], layer: int, dtype: str
) -> np.ndarray:
    """Normal weights of shape (replicas, fan_in, fan_out), with one init and one seed for each replica."""
    drawn: dict[int, np.ndarray] = {}
    weights = np.empty((len(seeds), fan_in, fan_out), dtype)
    for replica, (init, seed) in enumerate(zip(inits, seeds, strict=True)):
        if seed not in drawn:
            drawn[seed] = generator("weights", seed, layer).standard_normal((fan_in, fan_out))
        weights[replica] = standard_deviation(init, fan_in) * drawn[seed]
    return weights
