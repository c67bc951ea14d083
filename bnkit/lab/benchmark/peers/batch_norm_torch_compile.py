"""PyTorch's batch norm, residual and ReLU under torch.compile: one program for each shape."""

from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config
import torch.nn.functional as F

from bnkit.lab.benchmark.measure import OPS, Case, Op
from bnkit.lab.benchmark.peers.batch_norm import Calls
from bnkit.lab.benchmark.peers.batch_norm_torch import EPS, MOMENTUM, Tensors, autograd_backward

# By default a compiled backward may overwrite the saved tensors, so it could run only once for each forward.
torch._functorch.config.donated_buffer = False


def calls(case: Case, name: str, dtype: str) -> Calls:
    op, tensors = OPS[name], Tensors(case, dtype)
    torch.compiler.reset()  # after several shapes of a function PyTorch silently runs it uncompiled
    forward = _forward(tensors, op)
    if op.kind == "backward":
        return {"torch.compile, autograd": autograd_backward(tensors, op, forward)}

    def call() -> object:
        with torch.no_grad():
            return forward()

    return {"torch.compile": call}


def _forward(t: Tensors, op: Op) -> Callable[[], object]:
    def forward(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, residual: Any) -> Any:
        y = F.batch_norm(x, mean, var, gamma, beta, op.kind != "inference", MOMENTUM, EPS)
        if op.residual:
            y = y + residual
        return F.relu(y) if op.relu else y

    compiled = torch.compile(forward, fullgraph=True, dynamic=False)
    return lambda: compiled(t.x, t.gamma, t.beta, *t.running, t.residual if op.residual else None)
