"""Initial weights, drawn by NumPy from (seed, layer), so that one seed is one network on every backend."""

from collections.abc import Sequence

import numpy as np

from bnkit.backend import checks

Init = str | float
PURPOSES = ("weights", "order", "batches")


def generator(purpose: str, seed: int, index: int) -> np.random.Generator:
    """The draws of one layer's "weights", of one epoch's "order", or of an experiment's "batches".

    A function of all three alone; no two share a stream, for SeedSequence keeps a spawn key apart from the entropy.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), index)))


def standard_deviation(init: Init, fan_in: int) -> float:
    """The standard deviation of the initial weights of a layer with `fan_in` inputs.

    init: "he" for √(2 / fan_in) (He et al. 2015, equation 10), "xavier" for √(1 / fan_in) (Glorot & Bengio 2010 with
    the fan-out left aside, as Caffe and the tutorial have it), or the number itself.
    """
    if init == "he":
        return float(np.sqrt(2.0 / fan_in))
    if init == "xavier":
        return float(np.sqrt(1.0 / fan_in))
    if isinstance(init, str):
        raise ValueError(f"init must be 'he', 'xavier' or a standard deviation, got {init!r}")
    checks.check_real("init", init, least=0.0)
    return float(init)


@np.errstate(over="ignore")  # a standard deviation beyond the dtype is the caller's to choose
def draw_weights(
    fan_in: int, fan_out: int, *, inits: Sequence[Init], seeds: Sequence[int], layer: int, dtype: str
) -> np.ndarray:
    """Normal weights of shape (replicas, fan_in, fan_out), each replica of its own init and seed."""
    drawn: dict[int, np.ndarray] = {}
    weights = np.empty((len(seeds), fan_in, fan_out), dtype)
    for replica, (init, seed) in enumerate(zip(inits, seeds, strict=True)):
        if seed not in drawn:
            drawn[seed] = generator("weights", seed, layer).standard_normal((fan_in, fan_out))
        weights[replica] = standard_deviation(init, fan_in) * drawn[seed]
    return weights
