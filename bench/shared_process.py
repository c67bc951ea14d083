"""Prints whether bnkit and PyTorch slow each other down in one process: medians in µs of a (100, 100) forward.

    python bench/shared_process.py

Each library is timed in a new process, before and after the other library runs with all of its threads. Two OpenMP
runtimes that compete turn microseconds into milliseconds. bnkit uses plain threads and no OpenMP.
"""

import subprocess
import sys

import numpy as np

import bnkit
from bnkit.lab.benchmark import measure

SHAPE = (100, 100)
SECONDS = 0.5
LARGE = (32, 64, 56, 56)  # large enough that a library uses all of its threads


def bnkit_call(shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    gamma, beta, mean, var = np.ones((4, shape[1]), np.float32)
    out = np.empty_like(x)
    return lambda: bnkit.batch_norm(x, gamma, beta, mean, var, train=True, out=out)


def torch_call(shape):
    import torch

    x = torch.randn(shape, requires_grad=True)
    gamma, beta, mean, var = torch.ones(4, shape[1])
    return lambda: torch.nn.functional.batch_norm(x, mean, var, gamma, beta, True)


CALLS = {"bnkit": bnkit_call, "torch": torch_call}


def report(first, second):
    """Print the medians of `first` before and after `second` ran, in µs."""
    medians = []
    for name in (first, second, first):
        measure.sample(CALLS[name](LARGE), seconds=SECONDS)
        medians.append(measure.summarize(measure.sample(CALLS[name](SHAPE), seconds=SECONDS)).median * 1e6)
    print(medians[0], medians[2])


def main():
    for first, second in (("bnkit", "torch"), ("torch", "bnkit")):
        command = [sys.executable, __file__, first, second]
        before, after = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        print(f"{first}: {before:7.1f} µs before {second} ran, {after:7.1f} µs after")


if __name__ == "__main__":
    report(*sys.argv[1:]) if len(sys.argv) > 1 else main()
