"""Prints what `BatchNorm(reuse=True)` saves in a training step on large NumPy tensors.

    python bench/reuse.py [STEPS]

A step is a forward and a backward whose results are dropped, as in a training loop. Layers with and without reuse
alternate. `faults` counts the page faults of one step.
"""

import resource
import statistics
import sys
import time

import numpy as np

import bnkit

WARM = 2  # steps of each layer before the measured ones
SHAPES = [(64, 256, 14, 14), (32, 64, 56, 56), (50, 256, 56, 56)]


def step(layer: bnkit.BatchNorm, x: np.ndarray, dy: np.ndarray) -> tuple[float, int]:
    """Milliseconds and page faults."""
    faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    layer.backward(dy, layer.forward(x, train=True)[1])
    elapsed = time.perf_counter() - start
    return elapsed * 1e3, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults


def main(steps: int) -> None:
    for shape in SHAPES:
        rng = np.random.default_rng(0)
        x, dy = (rng.standard_normal(shape, np.float32) for _ in range(2))
        layers = [bnkit.BatchNorm(shape[1], reuse=reuse, backend="numpy") for reuse in (False, True)]
        turns = [[step(layer, x, dy) for layer in layers] for _ in range(WARM + steps)][WARM:]
        print(f"{shape}, {x.nbytes / 2**20:.0f} MiB")
        for name, results in zip(("new arrays", "reuse"), zip(*turns, strict=True), strict=True):
            low, median, high = statistics.quantiles((ms for ms, _ in results), n=4)
            faults = statistics.median(n for _, n in results)
            print(f"  {name:10s} {median:7.2f} ms (quartiles {low:.2f} to {high:.2f}), {faults:.0f} faults")
        ratio = statistics.median(new[0] / reused[0] for new, reused in turns)
        print(f"  ratio {ratio:.2f}, median of the pairs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
