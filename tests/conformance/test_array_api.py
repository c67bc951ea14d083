"""The reference ops under array_api_strict in its strictest setting: nothing but what the array API standard requires.

Of the newest standard, without its optional parts (boolean indexing, shapes that depend on data, extensions), and on
each of its devices, where an array made from nothing would lie on the wrong one.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import array_api_strict as xp
import numpy as np
import pytest

from bnkit import reference
from bnkit.reference import (
    BackwardArguments,
    GradientSumsArguments,
    InferenceArguments,
    MomentsArguments,
    StepArguments,
    TrainArguments,
)

NEWEST = max(xp._flags.supported_versions)
SHAPE = (2, 5, 3, 4)
SMALL = (2, 3)
Host = np.ndarray[Any, Any]


@pytest.fixture(params=["CPU_DEVICE", "device1"])
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    with xp.ArrayAPIStrictFlags(
        api_version=NEWEST, boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    ):
        yield xp.Device(request.param)


def drawn(dtype: str) -> dict[str, Host]:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(1, 1, SHAPE).astype(dtype) for name in ("x", "dy", "residual")}
    arrays |= {name: rng.uniform(0.5, 2, SMALL).astype(dtype) for name in ("gamma", "beta", "mean", "var")}
    arrays |= {"count": np.full(SMALL, 20.0), "rstd": rng.uniform(0.5, 2, SMALL), "m2": rng.uniform(1, 9, SMALL)}
    return arrays | {"mask": rng.random(SHAPE) < 0.7, "known": np.array([[True, False, True]] * 2)}


def train(xp: Any, a: dict[str, Any], *, mask: bool = False, residual: bool = False, out: bool = False) -> list[Any]:
    mean, var = (xp.astype(a[n], a[n].dtype) for n in ("mean", "var"))
    args = TrainArguments(
        a["x"], a["gamma"], a["beta"], mean, var, decay=0.9, eps=1e-5, correction=1,
        mask=a["mask"] if mask else None, residual=a["residual"] if residual else None,
        activation="relu" if residual else None, out=xp.zeros_like(a["x"]) if out else None,
    )  # fmt: skip
    result = reference.batch_norm_train(xp, args)
    return [result.y, *result.moments, result.rstd, result.active, mean, var]


def backward(xp: Any, a: dict[str, Any], *, train: bool, mask: bool = False, residual: bool = False) -> list[Any]:
    active = reference.pack_bits(xp, a["x"] > 1) if residual else None
    args = BackwardArguments(
        a["dy"], a["x"], a["gamma"], a["beta"], xp.astype(a["mean"], xp.float64), a["rstd"],
        train=train, count=a["count"], mask=a["mask"] if mask else None, residual=residual,
        activation="relu" if residual else None, active=active,
    )  # fmt: skip
    return list(reference.batch_norm_backward(xp, args))


def inference(xp: Any, a: dict[str, Any]) -> tuple[Any, ...]:
    args = InferenceArguments(a["x"], a["gamma"], None, a["mean"], a["var"], 1e-5, a["residual"], "relu")
    return reference.batch_norm_inference(xp, args)


def gradient_sums(xp: Any, a: dict[str, Any]) -> tuple[Any, ...]:
    given = a["dy"], a["x"], a["gamma"], a["beta"], a["mean"], a["rstd"]
    return reference.batch_norm_gradient_sums(xp, GradientSumsArguments(*given, a["mask"], "relu"))


def moved(xp: Any, a: dict[str, Any], op: Callable[..., None], *others: Any, **options: Any) -> list[Any]:
    running = [xp.astype(a[n], a[n].dtype) for n in ("mean", "var")]
    op(xp, *(running[:1] if op is reference.move else running), *others, **options)
    return running


def moments(a: dict[str, Any]) -> reference.Moments:
    return reference.Moments(a["count"], a["rstd"], a["m2"])


def philox(xp: Any, a: dict[str, Any]) -> list[Any]:
    blocks = xp.cumulative_sum(xp.astype(xp.ones_like(a["count"][0, :]), xp.uint64))
    return [reference.uniform(xp, blocks, (7, 8), (1, 2, 3))]


def losses(xp: Any, a: dict[str, Any]) -> list[Any]:
    labels = xp.astype(a["mask"][0, :, 0, 0], xp.int64)
    weights = a["gamma"][:, None, None, :1] * xp.astype(a["mask"], a["x"].dtype)
    with_labels = reference.softmax_cross_entropy(xp, a["x"][:, :, 0, :], labels)
    return [*with_labels, *reference.softmax_cross_entropy(xp, a["x"], weights)]


def products(xp: Any, a: dict[str, Any]) -> list[Any]:
    x, dy = (xp.reshape(a[n], (a[n].shape[0], a[n].shape[1], -1)) for n in ("x", "dy"))
    shared = reference.matmul(xp, xp.matrix_transpose(x[0, ...]), dy)
    return [shared, reference.matmul(xp, xp.matrix_transpose(x), dy), reference.matmul(xp, x[0, ...], dy[0, ...].mT)]


STEPS = {"sgd": (), "momentum": ("mean",), "nesterov": ("mean",), "adagrad": ("var",), "rmsprop": ("var",)}
STEPS |= {"adam": ("mean", "var")}


def stepped(xp: Any, a: dict[str, Any], rule: str, *, rates: bool) -> list[Any]:
    p, *memory = (xp.astype(a[n], a[n].dtype) for n in ("gamma", *STEPS[rule]))
    decays = (0.9, 0.99)[: 0 if rule == "adagrad" else len(memory)]
    lr = a["var"][:, 0] if rates else 0.1
    reference.optimizer_step(xp, StepArguments(rule, p, a["beta"], memory, lr, decays, 1e-8, weight_decay=0.1, step=3))
    return [p, *memory]


# each op as a function of the namespace and the arrays, so that NumPy gives what is expected
OPS: dict[str, list[Callable[[Any, dict[str, Any]], Any]]] = {
    "batch_norm_moments": [
        lambda xp, a: reference.batch_norm_moments(xp, MomentsArguments(a["x"])),
        lambda xp, a: reference.batch_norm_moments(xp, MomentsArguments(a["x"], mask=a["mask"])),
    ],
    "batch_norm_train": [
        lambda xp, a: train(xp, a),
        lambda xp, a: train(xp, a, mask=True, residual=True),
        lambda xp, a: train(xp, a, residual=True, out=True),
    ],
    "batch_norm_inference": [inference],
    "batch_norm_gradient_sums": [gradient_sums],
    "batch_norm_backward": [
        lambda xp, a: backward(xp, a, train=True),
        lambda xp, a: backward(xp, a, train=True, mask=True, residual=True),
        lambda xp, a: backward(xp, a, train=False, residual=True),
    ],
    "move_running": [lambda xp, a: moved(xp, a, reference.move_running, moments(a), decay=0.9, correction=1)],
    "move": [lambda xp, a: moved(xp, a, reference.move, a["var"], a["known"], decay=0.9)],
    "variance": [lambda xp, a: [reference.variance(xp, moments(a), 1)]],
    "reciprocal_std": [lambda xp, a: [reference.reciprocal_std(xp, a["var"], 1e-5)]],
    "matmul": [products],
    "softmax_cross_entropy": [losses],
    "optimizer_step": [functools.partial(stepped, rule=rule, rates=rates) for rule in STEPS for rates in (False, True)],
    "pack_bits": [lambda xp, a: [reference.pack_bits(xp, a["mask"])]],
    "unpack_bits": [lambda xp, a: [reference.unpack_bits(xp, reference.pack_bits(xp, a["mask"]), SHAPE)]],
    "uniform": [philox],
}


def test_every_op_of_the_reference_is_among_them() -> None:
    functions = inspect.getmembers(reference, inspect.isfunction)
    public = {n for n, f in functions if not n.startswith("_") and f.__module__.startswith("bnkit.")}
    assert public == set(OPS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_the_op_needs_nothing_but_the_standard_and_keeps_to_the_device(name: str, dtype: str, device: Any) -> None:
    host = drawn(dtype)
    there = {n: xp.asarray(a.copy(), device=device) for n, a in host.items()}
    for call in OPS[name]:
        for got, want in zip(call(xp, there), call(np, host), strict=True):
            if want is None:
                assert got is None
                continue
            assert got.device == device
            back = np.asarray(got.to_device(xp.Device("CPU_DEVICE")))
            assert back.dtype == want.dtype
            np.testing.assert_array_equal(back, want)  # array_api_strict computes by NumPy
