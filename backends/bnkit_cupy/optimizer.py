"""The step of an optimizer by its kernel: whether the arrays are such as it takes, and with which arguments."""

import itertools

import numpy as np

from bnkit.reference import StepArguments

from .launch import ITEMSIZE, RULES, STEPPED, VECTOR_BYTES, Launcher, address, blocks_for, rule_name, vectors_fit
from .plan import THREADS


def takes(args: StepArguments) -> bool:
    """Whether the kernel does this step. If not, the reference does it or says what is wrong."""
    p, lr = args.p, args.lr
    arrays = [p, args.g, *args.memory, *([] if isinstance(lr, float) else [lr])]
    if RULES.get(args.rule) != (len(args.memory), len(args.decays)) or p.size == 0 or p.dtype.name not in STEPPED:
        return False
    if any(a.dtype != p.dtype or not a.flags.c_contiguous or address(a) % p.dtype.itemsize for a in arrays):
        return False
    if any(tuple(a.shape) != tuple(p.shape) for a in (args.g, *args.memory)):
        return False
    if not isinstance(lr, float) and tuple(lr.shape) != tuple(p.shape[:1]):
        return False
    spans = sorted((address(a), address(a) + a.nbytes) for a in arrays)
    return all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def step(launcher: Launcher, args: StepArguments) -> None:
    rule, p, g, memory, lr, decays, eps, weight_decay, step = args
    dtype, shape = p.dtype.name, tuple(p.shape)
    stored = np.dtype(dtype).type
    for name, a in (("p", p), ("g", g), *(("memory", m) for m in memory)):
        launcher.argument(name, a, dtype, shape)
    shared = isinstance(lr, float)
    rates = None if shared else launcher.argument("lr", lr, dtype, shape[:1])
    rate = lr if shared else 0.0
    weighed: list[float] = []
    for decay in (*decays, 0.0, 0.0)[:2]:
        weighed += [decay, 1 - decay, 1 - decay**step]
    first, second = (*memory, None, None)[:2]
    scalars = map(stored, (rate, 1 - rate * weight_decay, weight_decay, *weighed, eps))
    sizes = map(np.int64, (p.size, p.size // (1 if shared else shape[0])))
    arguments = (p, g, first, second, rates, *sizes, *scalars, vectors_fit(p, g, *memory))
    blocks = blocks_for(p.size, VECTOR_BYTES // ITEMSIZE[dtype] * THREADS)
    launcher(rule_name(rule, dtype), blocks, arguments, dtype=dtype)
