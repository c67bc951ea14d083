"""Fails where the ways of a peer disagree; a script, since torch and jax stay out of the process of the tests.

PEER: "torch", "jax", "torch-compile" or "cudnn"; the last runs over a stand-in for cuDNN, which the CPU has not.
"""

import importlib
import sys

import numpy as np

from bnkit.lab.benchmark import measure

CASES = [measure.Case((10, 6), 1), measure.Case((3, 4, 2, 5), 1), measure.Case((3, 2, 5, 4), -1)]
CASES += [measure.Case((2, 10, 6), (0, 2))]

NAME = sys.argv[1]
OPS = tuple(measure.OPS)
if NAME == "torch-compile":  # seconds for each program
    CASES, OPS = CASES[2:3], ("train-residual-relu", "inference", "backward-residual-relu")

peer = importlib.import_module(f"bnkit.lab.benchmark.peers.batch_norm_{NAME.replace('-', '_')}")


def stand_in_for_cudnn():
    """cuDNN's operators by PyTorch's own, with what they hand on: the statistics and a reserve."""
    import torch

    own, native = torch.library.Library("aten", "IMPL"), torch.ops.aten

    def forward(x, gamma, beta, mean, var, train, momentum, eps):
        assert x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        y, *kept = native.native_batch_norm(x, gamma, beta, mean, var, train, momentum, eps)
        return y, *kept, torch.full((3,), 7, dtype=torch.uint8)

    def backward(x, dy, gamma, mean, var, saved_mean, saved_rstd, eps, reserve):
        assert reserve.tolist() == [7, 7, 7]
        assert dy.stride() == x.stride()
        return native.native_batch_norm_backward(dy, x, gamma, mean, var, saved_mean, saved_rstd, True, eps, [True] * 3)

    own.impl("cudnn_batch_norm", forward, "CPU")
    own.impl("cudnn_batch_norm_backward", backward, "CPU")
    return own  # its end would be the stand-in's


def first(result):
    """y or dx, the first array of what a way returns, nested or not."""
    while isinstance(result, (tuple, list)):
        result = result[0]
    return np.asarray(result.detach() if hasattr(result, "detach") else result)


def check(case, op):
    results = [first(call()) for name, call in peer.calls(case, op, "float64").items() if "donated" not in name]
    if NAME in ("torch-compile", "cudnn"):  # from the same seed
        torch_peer = importlib.import_module("bnkit.lab.benchmark.peers.batch_norm_torch")
        results += [first(call()) for call in torch_peer.calls(case, op, "float64").values()]
    assert len(results) > 1 or op == "inference", "nothing to compare"
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=1e-10, err_msg=f"{case} {op}")  # of sums of 30 numbers
    channels = case.axis if isinstance(case.axis, tuple) else case.axis % len(case.shape)
    if NAME != "jax":
        channels = 1
    others = tuple(a for a in range(results[0].ndim) if a not in np.atleast_1d(channels))
    if op == "backward":  # what batch norm's gradient is known for
        np.testing.assert_allclose(results[0].sum(others), 0, atol=1e-10)
    assert np.prod([results[0].shape[a] for a in np.atleast_1d(channels)]) == np.prod(
        [case.shape[a] for a in np.atleast_1d(case.axis)]
    ), f"{case} has other channels in {NAME}"


stand_in = stand_in_for_cudnn() if NAME == "cudnn" else None
for case in CASES:
    for op in OPS:
        check(case, op)
if NAME == "torch":
    import torch

    assert peer.Tensors(CASES[2], "float32").x.is_contiguous(memory_format=torch.channels_last)
    assert peer.Tensors(CASES[1], "float32").x.is_contiguous()
