"""cuDNN's batch norm, by PyTorch's operators of that name. They run cuDNN or fail, and always fail on the CPU.

F.batch_norm, which the peer "torch" calls, chooses between the kernels of cuDNN and of PyTorch by dtype, rank and size,
and does not report its choice.
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
    """y, and the tensors that cuDNN saves for its backward."""
    train = op.kind != "inference"
    y, *saved = aten.cudnn_batch_norm(t.x, t.gamma, t.beta, *t.running, train, MOMENTUM, EPS)
    return finish(y, t, op), *saved


def _backward(t: Tensors, op: Op) -> Callable[[], object]:
    with torch.no_grad():
        y, mean, rstd, reserve = _forward(t, op)

    def call() -> Any:
        with torch.no_grad():
            dy = aten.threshold_backward(t.dy, y, 0) if op.relu else t.dy
            return aten.cudnn_batch_norm_backward(t.x, dy, t.gamma, *t.running, mean, rstd, EPS, reserve), dy

    return call
