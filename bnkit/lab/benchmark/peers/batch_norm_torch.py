"""PyTorch's batch norm: F.batch_norm with autograd, and the operators that it calls, with and without out=.

An NHWC case is a tensor in torch's channels_last format, with the same memory. Replicas are (rows, replicas *
features), so that torch normalizes them in one call. ReLU and the sum with the residual work in place: it is faster.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from bnkit.lab.benchmark.measure import OPS, Case, Op
from bnkit.lab.benchmark.peers.batch_norm import Calls

MOMENTUM, EPS = 0.1, 1e-5
aten = torch.ops.aten


class Tensors:
    """The tensors of a case, with the channels on axis 1 as torch expects them."""

    def __init__(self, case: Case, dtype: str) -> None:
        torch.manual_seed(0)
        shape, stored = case.shape, getattr(torch, dtype)
        if case.layout == "replicas":
            shape = (shape[1], shape[0] * shape[2])
        parameter = torch.float64 if dtype == "float64" else torch.float32

        def normal() -> Any:
            tensor = torch.randn(shape).to(stored)
            return tensor.permute(0, 3, 1, 2) if case.layout == "NHWC" else tensor

        self.x, self.dy, self.residual = normal(), normal(), normal()
        channels = self.x.shape[1]
        self.gamma = torch.rand(channels, dtype=parameter) + 0.5
        self.beta = torch.randn(channels, dtype=parameter)
        self.running = (torch.zeros(channels, dtype=parameter), torch.ones(channels, dtype=parameter))
        self.out = torch.zeros_like(self.x)

    def leaves(self, op: Op) -> list[Any]:
        """The tensors that need a gradient, with requires_grad set."""
        return [a.requires_grad_() for a in (self.x, self.gamma, self.beta, *([self.residual] if op.residual else []))]


def calls(case: Case, name: str, dtype: str) -> Calls:
    op, tensors = OPS[name], Tensors(case, dtype)
    if op.kind == "backward":
        return {
            "F.batch_norm, autograd": autograd_backward(tensors, op, _functional(tensors, op, True)),
            "native_batch_norm_backward": _native_backward(tensors, op),
            "native_batch_norm_backward, out=": _native_backward_out(tensors, op),
        }
    train = op.kind == "train"
    return {
        "F.batch_norm, autograd" if train else "F.batch_norm": _functional(tensors, op, train),
        "native_batch_norm": _native(tensors, op, train),
        "native_batch_norm, out=": _native_out(tensors, op, train),
    }


def _functional(t: Tensors, op: Op, train: bool) -> Callable[[], object]:
    if train:
        t.leaves(op)

    def call() -> Any:
        with torch.set_grad_enabled(train):
            return finish(F.batch_norm(t.x, *t.running, t.gamma, t.beta, train, MOMENTUM, EPS), t, op)

    return call


def _native(t: Tensors, op: Op, train: bool) -> Callable[[], object]:
    def call() -> Any:
        with torch.no_grad():
            y, *_ = torch.native_batch_norm(t.x, t.gamma, t.beta, *t.running, train, MOMENTUM, EPS)
            return finish(y, t, op)

    return call


def _native_out(t: Tensors, op: Op, train: bool) -> Callable[[], object]:
    saved = [torch.empty_like(t.gamma, requires_grad=False) for _ in range(2 if train else 0)]
    saved = saved or [torch.empty(0, dtype=t.gamma.dtype) for _ in range(2)]  # inference saves no statistics

    def call() -> Any:
        with torch.no_grad():
            options = {"out": t.out, "save_mean": saved[0], "save_invstd": saved[1]}
            aten.native_batch_norm.out(t.x, t.gamma, t.beta, *t.running, train, MOMENTUM, EPS, **options)
            return finish(t.out, t, op)

    return call


def finish(y: Any, t: Tensors, op: Op) -> Any:
    """Add the residual and apply the ReLU, in the memory of y."""
    if op.residual:
        y = y.add_(t.residual)
    return F.relu(y, inplace=True) if op.relu else y


def autograd_backward(t: Tensors, op: Op, forward: Callable[[], object]) -> Callable[[], object]:
    """A call of the gradients of `forward` with respect to the leaves of `t`."""
    leaves = t.leaves(op)
    y = forward()
    return lambda: torch.autograd.grad(y, leaves, t.dy, retain_graph=True)


def _native_backward(t: Tensors, op: Op) -> Callable[[], object]:
    y, statistics = _forward_for_backward(t, op)

    def call() -> Any:
        with torch.no_grad():
            dy = aten.threshold_backward(t.dy, y, 0) if op.relu else t.dy
            grads = aten.native_batch_norm_backward(dy, t.x, t.gamma, *t.running, *statistics, True, EPS, [True] * 3)
            return grads, dy

    return call


def _native_backward_out(t: Tensors, op: Op) -> Callable[[], object]:
    y, statistics = _forward_for_backward(t, op)
    upstream = torch.zeros_like(t.dy)
    dgamma, dbeta = torch.zeros_like(t.gamma), torch.zeros_like(t.gamma)

    def call() -> Any:
        with torch.no_grad():
            dy = t.dy
            if op.relu:
                dy = aten.threshold_backward.grad_input(t.dy, y, 0, grad_input=upstream)
            options = {"out0": t.out, "out1": dgamma, "out2": dbeta}
            arguments = (dy, t.x, t.gamma, *t.running, *statistics, True, EPS, [True] * 3)
            return aten.native_batch_norm_backward.out(*arguments, **options), dy

    return call


def _forward_for_backward(t: Tensors, op: Op) -> tuple[Any, tuple[Any, Any]]:
    with torch.no_grad():
        y, mean, rstd = torch.native_batch_norm(t.x, t.gamma, t.beta, *t.running, True, MOMENTUM, EPS)
        return finish(y, t, op), (mean, rstd)
