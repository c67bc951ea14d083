"""The CPU kernel of an optimizer's step: the reference's bits, and what it leaves to the reference."""

import functools
from typing import Any

import numpy as np
import pytest
from kernel_memory import start_child, told_by
from small_steps import RULES, SHAPES, Array, after, make_step

import bnkit
from bnkit import reference
from bnkit.reference import StepArguments
from bnkit_numpy import compiled_kernels

KERNELS: Any = compiled_kernels()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="installed without the compiled kernels")
by_reference = functools.partial(reference.optimizer_step, np)
every_rule = pytest.mark.parametrize("rule", RULES)

CHILD = """
    import itertools, zlib
    from small_steps import RULES, SHAPES, after, make_step
    import bnkit
    op, checksum = bnkit.get_backend("numpy").optimizer_step, 0
    for rule, shape, dtype, rates in itertools.product(RULES, SHAPES, ("float32", "float64"), (False, True)):
        if shape or not rates:
            for a in after(op, make_step(rule, shape, dtype, rates=rates, weight_decay=0.02)):
                checksum = zlib.crc32(a.tobytes(), checksum)
    print(checksum)
"""


def by_kernel(args: StepArguments) -> None:
    assert KERNELS.optimizer_step(args), "the kernel left it to the reference"


def declined(args: StepArguments) -> bool:
    """Whether the kernel left it to the reference, and wrote nothing."""
    before = [a.tobytes() for a in (args.p, *args.memory)]
    done = KERNELS.optimizer_step(args)
    return not done and before == [a.tobytes() for a in (args.p, *args.memory)]


@every_rule
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_those_of_the_reference(rule: str, shape: tuple[int, ...], dtype: str) -> None:
    for rates in (False, True) if shape else (False,):
        for weight_decay, step in ((0.0, 1), (0.02, 1000)):
            made = make_step(rule, shape, dtype, rates=rates, weight_decay=weight_decay, step=step)
            for got, want in zip(after(by_kernel, made), after(by_reference, made), strict=True):
                np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), want.view(f"u{got.itemsize}"))


@pytest.mark.slow
def test_the_bits_are_the_same_at_every_level_and_with_any_threads() -> None:
    children = [start_child(CHILD, BNKIT_CPU_LEVEL=level) for level in [*KERNELS.kernel_levels(), "off"]]
    children += [start_child(CHILD, BNKIT_NUM_THREADS=str(count)) for count in (1, 2, 5)]
    assert len({told_by(child) for child in children}) == 1


@every_rule
def test_nan_and_infinity_stay_in_their_element(rule: str) -> None:
    made = make_step(rule, (1001,), "float32")
    made.g[[3, 500]] = np.nan, np.inf
    for got, want in zip(after(by_kernel, made), after(by_reference, made), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("which", ["p", "g", "memory", "lr"])
def test_an_array_that_is_not_contiguous_is_left_to_the_reference(which: str) -> None:
    made = make_step("momentum", (6, 4), "float32", rates=True)
    spread: dict[str, Any] = {name: np.repeat(getattr(made, name), 2, axis=0)[::2] for name in ("p", "g", "lr")}
    spread["memory"] = (np.repeat(made.memory[0], 2, axis=0)[::2],)
    changed = made._replace(**{which: spread[which]})
    assert declined(changed)
    p, v = changed.p.copy(), changed.memory[0].copy()
    bnkit.get_backend("numpy").optimizer_step(changed)
    by_reference(made._replace(p=p, memory=(v,)))
    np.testing.assert_array_equal(changed.p, p)
    np.testing.assert_array_equal(changed.memory[0], v)


def overlapping(a: Array, by: int) -> tuple[Array, Array]:
    """Two arrays like `a` in one memory, the second so many elements further."""
    whole = np.resize(a, a.size + by).copy()
    return whole[: a.size], whole[by:]


@pytest.mark.parametrize("by", [0, 1, 99])
def test_arrays_that_share_memory_are_left_to_the_reference(by: int) -> None:
    made = make_step("adam", (100,), "float64")
    first, second = overlapping(made.p, by)
    assert declined(made._replace(p=first, g=second))
    assert declined(made._replace(p=first, memory=(second, made.memory[1])))
    assert declined(made._replace(memory=(first, second)))


@every_rule
def test_a_gradient_that_is_the_parameters_gives_what_the_reference_gives(rule: str) -> None:
    """As where parameters are their own gradient, of half their square."""
    made = make_step(rule, (100,), "float32", weight_decay=0.02)
    results = []
    for op in (bnkit.get_backend("numpy").optimizer_step, by_reference):
        p, memory = made.p.copy(), tuple(a.copy() for a in made.memory)
        op(made._replace(p=p, g=p, memory=memory))
        results.append((p, *memory))
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "lion"},
        {"memory": ()},
        {"g": np.ones((4, 3), np.float32)},
        {"g": np.ones((3, 4), np.float64)},
        {"p": np.ones((3, 4), np.float16)},
        {"g": np.ones((3, 4), ">f4")},
        {"p": np.empty((0, 4), np.float32), "g": np.empty((0, 4), np.float32)},
        {"lr": np.ones(4, np.float32)},
        {"lr": np.ones((3, 1), np.float32)},
        {"lr": np.ones(3, np.float64)},
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_left_to_the_reference(changes: dict[str, Any]) -> None:
    assert declined(make_step("momentum", (3, 4), "float32")._replace(**changes))


def test_a_read_only_parameter_is_left_to_the_reference_which_refuses_it() -> None:
    made = make_step("sgd", (7,), "float32")
    made.p.flags.writeable = False
    assert declined(made)
    with pytest.raises(ValueError, match="read-only"):
        bnkit.get_backend("numpy").optimizer_step(made)


def test_a_rule_that_there_is_not_is_named() -> None:
    made = make_step("sgd", (7,), "float32")
    with pytest.raises(ValueError, match="rule must be one of sgd, momentum, nesterov, adagrad, rmsprop, adam, got 'l"):
        bnkit.get_backend("numpy").optimizer_step(made._replace(rule="lion"))
