"""An op of the CuPy backend within the capture of a stream, on the double: nothing that a CUDA graph cannot hold."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_host.device_array import allocations
from cuda_host.host_backend import DEVICES, ONE_READ, CudaHostBackend, needs_compiler

import bnkit
from bnkit.reference import (
    BackwardArguments,
    GradientSumsArguments,
    InferenceArguments,
    MomentsArguments,
    StepArguments,
    TrainArguments,
)

pytestmark = needs_compiler

# Cut into parts, which count each other, where they are read twice and where they are read once.
SHAPES = [(1, 2200, 8, 1), (1, 600, 2, 32), (1, 9, 3, 1)]


def calls(ops: CudaHostBackend, shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Each op over arrays of its own, which are on the device before the call."""
    rng = np.random.default_rng(shape)
    x, dy, residual, out = (ops.asarray(rng.normal(2, 3, shape).astype(np.float32)) for _ in range(4))
    gamma, beta, mean, var = (ops.asarray(rng.uniform(0.5, 2, shape[:3:2]).astype(np.float32)) for _ in range(4))
    logits, labels = ops.asarray(rng.normal(size=(3, 33, 37)).astype(np.float32)), ops.asarray(np.arange(33) % 37)
    options: dict[str, Any] = {"residual": residual, "activation": "relu"}
    train = TrainArguments(x, gamma, beta, mean, var, 0.9, 1e-5, 1, **options)
    plain = TrainArguments(x, None, None, None, None, 0.9, 1e-5, 1, out=out)
    made = ops.batch_norm_train(train)
    given = (dy, x, gamma, beta, made.moments.mean, made.rstd)
    gate: dict[str, Any] = {"activation": "relu", "active": made.active}
    part = GradientSumsArguments(*given, **gate)
    of_all = ops.batch_norm_gradient_sums(part)
    back = BackwardArguments(*given, True, made.moments.count, residual=True, **gate)
    inference = InferenceArguments(x, gamma, beta, mean, var, 1e-5, **options)
    rates = ops.asarray(np.full(shape[0], 0.1, np.float32))
    return {
        "train": lambda: ops.batch_norm_train(train),
        "train without parameters": lambda: ops.batch_norm_train(plain),
        "inference": lambda: ops.batch_norm_inference(inference),
        "moments": lambda: ops.batch_norm_moments(MomentsArguments(x)),
        "gradient sums": lambda: ops.batch_norm_gradient_sums(part),
        "backward": lambda: ops.batch_norm_backward(back),
        "backward by sums of all": lambda: ops.batch_norm_backward(back._replace(sums=of_all)),
        "softmax": lambda: ops.softmax_cross_entropy(logits, labels),
        "optimizer step": lambda: ops.optimizer_step(StepArguments("momentum", x, dy, (residual,), 0.1, decays=(0.9,))),
        "optimizer step of replicas": lambda: ops.optimizer_step(StepArguments("sgd", x, dy, (), rates)),
        "uniform": lambda: ops.uniform((1, 2, 3), (1025,)),
        "uniform of replicas": lambda: ops.uniform(([3, 2**40], 2, 3), (2, 65)),
    }


NAMES = [
    *("train", "train without parameters", "inference", "moments", "gradient sums", "backward"),
    *("backward by sums of all", "softmax", "uniform", "uniform of replicas"),
    *("optimizer step", "optimizer step of replicas"),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", NAMES)
def test_an_op_that_ran_once_can_be_captured(op: str, shape: tuple[int, ...], device: str) -> None:
    """The pool has what it asks for, since the first call asked for the same."""
    call = calls(CudaHostBackend(limits=DEVICES[device]), shape)[op]
    with allocations() as first:
        call()
    with allocations(capture=True) as second:
        call()
    assert second == first


@pytest.mark.parametrize("train", [True, False], ids=["train", "inference"])
@pytest.mark.parametrize(("shape", "axis"), [((300, 40), 1), ((6, 5, 8, 3), 1), ((6, 8, 3, 5), -1)], ids=str)
def test_a_step_that_ran_once_can_be_captured(shape: tuple[int, ...], axis: int, train: bool) -> None:
    ops, rng = bnkit.get_backend("cuda_host"), np.random.default_rng(shape)
    x, dy, residual = (ops.asarray(rng.normal(size=shape).astype(np.float32)) for _ in range(3))
    small = [ops.asarray(rng.uniform(0.5, 2, shape[axis]).astype(np.float32)) for _ in range(4)]

    def step() -> None:
        _, cache = bnkit.batch_norm(x, *small, train=train, axis=axis, residual=residual, activation="relu")
        bnkit.batch_norm_backward(dy, cache)

    with allocations() as first:
        step()
    with allocations(capture=True) as second:
        step()
    assert second == first


def test_a_first_call_cannot_be_captured() -> None:
    ops = CudaHostBackend(limits=ONE_READ)
    x = ops.asarray(np.ones((1, 9, 3, 1), np.float32))
    with pytest.raises(RuntimeError, match="a module is loaded"), allocations(capture=True):
        ops.batch_norm_moments(MomentsArguments(x))


@pytest.mark.parametrize(
    "use",
    [
        lambda ops, x: ops.asarray(np.ones(3)),
        lambda ops, x: ops.to_numpy(x),
        lambda ops, x: ops.synchronize(),
        lambda ops, x: float(x.sum()),
        lambda ops, x: 1 if x.any() else 0,
    ],
    ids=["copy in", "copy out", "synchronize", "float", "truth"],
)
def test_the_double_refuses_what_a_graph_cannot_hold(use: Callable[[CudaHostBackend, Any], Any]) -> None:
    ops = CudaHostBackend()
    x = ops.asarray(np.ones(3, np.float32))
    use(ops, x)
    with pytest.raises(RuntimeError, match="while the stream is captured"), allocations(capture=True):
        use(ops, x)
