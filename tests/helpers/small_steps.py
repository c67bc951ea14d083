"""Steps of every optimizer's rule: what they are given, and the arrays that come out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bnkit.reference import StepArguments
from bnkit.testing.optimizer import RULES as RULES

Array = np.ndarray[Any, Any]

# One element, fewer than a vector, entries that vectors reach across, several tasks, no axis.
SHAPES = [(1,), (3,), (4, 3), (5, 1, 7), (3, 20_011), (2, 33, 70), (16, 1), ()]


def after(op: Callable[[StepArguments], object], args: StepArguments, to: Any = np.asarray) -> tuple[Any, ...]:
    """The parameters and memories after the step by `op`, on copies that `to` moves to their backend."""
    p, g, *memory = (to(a.copy()) for a in (args.p, args.g, *args.memory))
    lr = args.lr if isinstance(args.lr, float) else to(args.lr.copy())
    op(args._replace(p=p, g=g, memory=tuple(memory), lr=lr))
    return p, *memory


def make_step(
    rule: str, shape: tuple[int, ...], dtype: str, *, rates: bool = False, weight_decay: float = 0.0, step: int = 3
) -> StepArguments:
    """rates: a learning rate for each entry of the leading axis."""
    rng = np.random.default_rng(len(shape) + sum(shape))
    memories, decays = RULES[rule]
    p, g, *memory = (np.asarray(rng.normal(size=shape)).astype(dtype) for _ in range(2 + memories))
    memory = [abs(a) if i == memories - 1 else a for i, a in enumerate(memory)]  # the last one is under the root
    lr = rng.uniform(0.1, 1, shape[:1]).astype(dtype) if rates else 0.013
    return StepArguments(rule, p, g, tuple(memory), lr, decays, 1e-8, weight_decay, step)
