"""Fails where the ways of a peer disagree; a script, since torch and jax stay out of the process of the tests.

PEER: "torch" or "jax".
"""

import importlib
import sys

import numpy as np

from bnkit import measure

CASES = [measure.Case((10, 6), 1), measure.Case((3, 4, 2, 5), 1), measure.Case((3, 2, 5, 4), -1)]
CASES += [measure.Case((2, 10, 6), (0, 2))]

peer = importlib.import_module(f"bnkit.peers.batch_norm_{sys.argv[1]}")


def first(result):
    """y or dx, the first array of what a way returns, nested or not."""
    while isinstance(result, (tuple, list)):
        result = result[0]
    return np.asarray(result.detach() if hasattr(result, "detach") else result)


def check(case, op):
    results = [first(call()) for name, call in peer.calls(case, op, "float64").items() if "donated" not in name]
    assert len(results) > 1 or op == "inference", "nothing to compare"
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=1e-10, err_msg=f"{case} {op}")  # of sums of 30 numbers
    channels = case.axis if isinstance(case.axis, tuple) else case.axis % len(case.shape)
    if sys.argv[1] == "torch":
        channels = 1
    others = tuple(a for a in range(results[0].ndim) if a not in np.atleast_1d(channels))
    if op == "backward":  # what batch norm's gradient is known for
        np.testing.assert_allclose(results[0].sum(others), 0, atol=1e-10)
    assert np.prod([results[0].shape[a] for a in np.atleast_1d(channels)]) == np.prod(
        [case.shape[a] for a in np.atleast_1d(case.axis)]
    ), f"{case} has other channels in {sys.argv[1]}"


for case in CASES:
    for op in measure.OPS:
        check(case, op)
if sys.argv[1] == "torch":
    import torch

    assert peer.Tensors(CASES[2], "float32").x.is_contiguous(memory_format=torch.channels_last)
    assert peer.Tensors(CASES[1], "float32").x.is_contiguous()
