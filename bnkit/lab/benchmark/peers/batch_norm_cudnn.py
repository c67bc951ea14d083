"""cuDNN's batch norm through PyTorch's operators of that name, which run it or fail.

F.batch_norm takes cuDNN's kernels or PyTorch's own by rules of its own (the dtype, the rank and the size), and does not
tell which: that is the peer "torch". There is none on the CPU.
"""

from collections.abc import Callable
from typing import Any

import torch

from bnkit.lab.benchmark.measure import OPS, Case, Op
from bnkit.lab.benchmark.peers.batch_norm import Calls
from bnkit.lab.benchmark.peers.batch_norm_torch import EPS, MOMENTUM, Tensors, autograd_backward, finish

aten = torch.ops.aten


def calls(case: Case, name: str, dtype: str) -> Calls:
    op, tensors = OPS[name], Tensors(case, dtype)
    if op.kind == "backward":
        return {
            "cudnn_batch_norm, autograd": autograd_backward(tensors, op, lambda: _forward(tensors, op)[0]),
            "cudnn_batch_norm_backward": _backward(tensors, op),
        }

    def call() -> Any:
        with torch.no_grad():
            return _forward(tensors, op)[0]

    return {"cudnn_batch_norm": call}


def _forward(t: Tensors, op: Op) -> tuple[Any, ...]:
    """y, and what cuDNN keeps for its backward."""
    train = op.kind != "inference"
    y, *kept = aten.cudnn_batch_norm(t.x, t.gamma, t.beta, *t.running, train, MOMENTUM, EPS)
    return finish(y, t, op), *kept


def _backward(t: Tensors, op: Op) -> Callable[[], object]:
    with torch.no_grad():
        y, mean, rstd, reserve = _forward(t, op)

    def call() -> Any:
        with torch.no_grad():
            dy = aten.threshold_backward(t.dy, y, 0) if op.relu else t.dy
            return aten.cudnn_batch_norm_backward(t.x, dy, t.gamma, *t.running, mean, rstd, EPS, reserve), dy

    return call
