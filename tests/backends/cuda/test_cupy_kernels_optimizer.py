"""The CUDA kernel of an optimizer's step, executed on the CPU, and what is left to the reference."""

import functools
from typing import Any

import numpy as np
import pytest
from cuda_host.host_backend import TWO_READS, needs_compiler, ops_on
from small_steps import RULES, SHAPES, Array, after, make_step

from bnkit import reference
from bnkit.reference import StepArguments

pytestmark = needs_compiler
by_reference = functools.partial(reference.optimizer_step, np)
every_rule = pytest.mark.parametrize("rule", RULES)


def at_offset(a: Any, by: int = 1) -> Array:
    """A copy that starts so many elements behind 16 aligned bytes."""
    a = np.asarray(a)
    whole = np.zeros(a.size + 16, a.dtype)
    start = -whole.ctypes.data % 16 // a.itemsize + by
    moved = whole[start : start + a.size].reshape(a.shape)
    moved[...] = a
    return moved


@every_rule
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("to", [np.asarray, at_offset], ids=["by vectors", "by elements"])
def test_a_step_is_that_of_the_reference(rule: str, dtype: str, to: Any) -> None:
    """Here to the bit, since the double contracts nothing; a device does, and rounds less often."""
    ops = ops_on(TWO_READS)
    for shape in SHAPES:
        for rates in (False, True) if shape else (False,):
            made = make_step(rule, shape, dtype, rates=rates, weight_decay=0.02)
            for got, want in zip(after(ops.optimizer_step, made, to), after(by_reference, made), strict=True):
                np.testing.assert_array_equal(got, want, err_msg=f"{shape} {rates}")
    assert {name for name, _ in ops.launches} == {"optimizer_step"}
    assert len(ops.launches) == 2 * len(SHAPES) - 1


def test_the_elements_of_another_entry_have_its_learning_rate_also_within_a_vector() -> None:
    p, g, lr = np.zeros((7, 3), np.float32), np.ones((7, 3), np.float32), np.arange(7, dtype=np.float32)
    ops_on(TWO_READS).optimizer_step(StepArguments("sgd", p, g, (), lr))
    np.testing.assert_array_equal(p, np.repeat(-lr, 3).reshape(7, 3))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p, g, v: (np.repeat(p, 2, 0)[::2], g, v),
        lambda p, g, v: (p, np.asfortranarray(g), v),
        lambda p, g, v: (p, p, v),
        lambda p, g, v: (p, g, p),
        lambda p, g, v: (p[:0], g[:0], v[:0]),
    ],
    ids=["p by steps", "g in another order", "g is p", "the memory is p", "no elements"],
)
def test_arrays_that_the_kernel_does_not_take_are_left_to_the_reference(spoil: Any) -> None:
    ops, made = ops_on(TWO_READS), make_step("momentum", (4, 6), "float32", weight_decay=0.02)
    results = []
    for op in (ops.optimizer_step, by_reference):
        p, g, v = spoil(made.p.copy(), made.g.copy(), made.memory[0].copy())
        op(made._replace(p=p, g=g, memory=(v,)))
        results.append((p, v))
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)
    assert ops.launches == []


def test_arrays_that_only_touch_are_apart() -> None:
    ops, whole = ops_on(TWO_READS), np.ones(16, np.float32)
    ops.optimizer_step(StepArguments("sgd", whole[:8], whole[8:], (), 0.5))
    np.testing.assert_array_equal(whole, [0.5] * 8 + [1] * 8)
    assert ops.launches == [("optimizer_step", False)]


@pytest.mark.slow
@every_rule
def test_no_thread_reads_what_another_one_writes(rule: str) -> None:
    ops = ops_on(TWO_READS, checked=True)
    after(ops.optimizer_step, make_step(rule, (5, 1, 7), "float32", rates=True))
    after(ops.optimizer_step, make_step(rule, (3, 1001), "float64"))
