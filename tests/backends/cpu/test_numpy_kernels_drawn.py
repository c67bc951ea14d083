"""`bnkit.batch_norm` on NumPy arrays against its formulas, over drawn shapes, memory layouts, dtypes and options."""

from typing import Any, NamedTuple

import kernel_oracle as oracle
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_memory import Memory, Placed, is_untouched_around, memories, place, place_nan

import bnkit

Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
LIMIT = 60_000  # elements of a drawn tensor
COUNTS = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 67, 131, 257, 333])


class Case(NamedTuple):
    dtype: Any
    shape: tuple[int, ...]
    axis: int | tuple[int, ...]
    axes: tuple[int, ...]  # the same, sorted and counted from the front
    memory: dict[str, Memory]
    given: frozenset[str]  # which arrays are given
    options: dict[str, Any]
    mean: float
    std: float
    seed: int


@st.composite
def shapes(draw: Any) -> tuple[tuple[int, ...], Any, tuple[int, ...]]:
    """A shape, the axis, and that sorted and counted from the front."""
    rows = draw(st.integers(1, 3000) | COUNTS)
    channels = min(draw(COUNTS | st.integers(1, 40)), max(LIMIT // rows, 1))
    height, width = draw(st.tuples(st.integers(1, 20), st.integers(1, 15)))
    height = min(height, max(LIMIT // (rows * channels * width), 1))
    if rows * channels * height * width > LIMIT:
        rows = max(LIMIT // (channels * height * width), 1)
    groups = draw(st.integers(1, 4))
    shape, axis, axes = draw(
        st.sampled_from(
            [
                ((rows, channels), 1, (1,)),
                ((channels, rows), 0, (0,)),
                ((rows, channels, width), 1, (1,)),
                ((rows, channels, height, width), 1, (1,)),
                ((rows, height, width, channels), -1, (3,)),
                ((rows, channels, height, width), (1, 2, 3), (1, 2, 3)),
                ((groups, rows // groups + 1, channels), (0, 2), (0, 2)),
                ((groups, rows // groups + 1, channels, width), (-2, 0), (0, 2)),
            ]
        )
    )
    empty = draw(st.sampled_from([None] * 30 + list(range(len(shape)))))
    return tuple(0 if a == empty else n for a, n in enumerate(shape)), axis, axes


@st.composite
def cases(draw: Any, dtype: Any) -> Case:
    shape, axis, axes = draw(shapes())
    train = draw(st.booleans())
    arrays = draw(st.frozensets(st.sampled_from(["gamma", "beta", "running", "residual", "out"])))
    arrays |= frozenset() if train else {"running"}
    count = int(np.prod([n for a, n in enumerate(shape) if a not in axes]))
    options = {
        "train": train,
        "activation": draw(st.sampled_from([None, "relu"])),
        "correction": draw(st.sampled_from([0, 1])) if count > 1 else 0,
        "decay": draw(st.sampled_from([0.9, 0.0, 1.0, -1.2, 2.5])),
        "eps": draw(st.sampled_from([1e-5, 1e-3, 1.0])),
    }
    big, small = memories(len(shape), dtype.itemsize), memories(len(axes), 8 if dtype == np.float64 else 4)
    x_memory = draw(big)
    memory = {"x": x_memory, "out": x_memory, "dy": draw(big), "residual": draw(big)}
    memory |= {name: draw(small) for name in ("gamma", "beta", "running_mean", "running_var")}
    mean, std = draw(st.sampled_from([(0.5, 1.5), (0.0, 1.0), (-3.0, 1e-3), (1e4, 1.0), (-300.0, 30.0)]))
    return Case(dtype, shape, axis, axes, memory, arrays, options, mean, std, draw(st.integers(0, 1000)))


def drawn_values(case: Case) -> dict[str, Array | None]:
    """x, dy, residual, and the small arrays; some channels of x are constant, some gammas 0."""
    rng = np.random.default_rng(case.seed)
    stored = np.float64 if case.dtype == np.float64 else np.float32
    small = tuple(case.shape[a] for a in case.axes)
    over = tuple(a for a in range(len(case.shape)) if a not in case.axes)
    spread = case.std * (np.expand_dims(rng.random(small), over) > 0.1)
    values = {
        "x": (case.mean + spread * rng.normal(size=case.shape)).astype(case.dtype),
        "dy": rng.normal(0.2, 1, case.shape).astype(case.dtype),
        "residual": rng.normal(0, 1, case.shape).astype(case.dtype),
        "gamma": (rng.uniform(-2, 2, small) * (rng.random(small) > 0.1)).astype(stored),
        "beta": rng.uniform(-1, 1, small).astype(stored),
        "running_mean": (case.mean + case.std * rng.normal(size=small)).astype(stored),
        "running_var": (case.std**2 * rng.uniform(0.5, 2, small)).astype(stored),
    }
    absent = {"gamma", "beta", "running", "residual"} - case.given
    return {k: None if k.partition("_")[0] in absent else v for k, v in values.items()}


def placed_like(values: dict[str, Array | None], case: Case) -> dict[str, Placed]:
    return {k: place(v, case.memory[k]) for k, v in values.items() if v is not None}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_forward_and_backward_are_those_of_the_formulas(dtype: Any, data: st.DataObject) -> None:
    case = data.draw(cases(dtype))
    options, values = dict(case.options), drawn_values(case)
    train, activation = options["train"], options["activation"]
    small = [values[k] for k in ("gamma", "beta", "running_mean", "running_var")]
    want = oracle.forward(values["x"], *small, axes=case.axes, residual=values["residual"], **options)
    values["dy"] = oracle.away_from_the_kink(values["dy"], want, activation)
    wanted = oracle.backward(values["dy"], want, small[0], axes=case.axes, train=train, activation=activation)

    there = placed_like(values, case)
    arrays = {k: placed.array for k, placed in there.items()}
    outs = [place_nan(values["x"], case.memory["out"]) if "out" in case.given else None for _ in range(2)]
    given_small = [arrays.get(k) for k in ("gamma", "beta", "running_mean", "running_var")]
    options |= {"axis": case.axis, "residual": arrays.get("residual"), "out": outs[0] and outs[0].array}
    y, cache = bnkit.batch_norm(arrays["x"], *given_small, **options)
    grads = bnkit.batch_norm_backward(arrays["dy"], cache, out=outs[1] and outs[1].array)

    oracle.assert_near(y, want.y, "y")
    oracle.assert_near(grads.dx, wanted.dx, "dx")
    for name in ("gamma", "beta"):
        got = getattr(grads, f"d{name}")
        if name in case.given:
            oracle.assert_near(got, getattr(wanted, f"d{name}"), f"d{name}")
        else:
            assert got is None
    for name in ("running_mean", "running_var"):
        if name in arrays:
            oracle.assert_near(arrays[name], getattr(want, name), name)
    if "residual" in case.given:  # dy itself, or 0: nothing to round
        np.testing.assert_array_equal(oracle.wide(grads.dresidual), wanted.dresidual)
    written = {"running_mean", "running_var"} if train else set()
    for name in arrays.keys() - written:
        np.testing.assert_array_equal(arrays[name], values[name], err_msg=f"{name} was written to")
    for placed in (*there.values(), *filter(None, outs)):
        assert is_untouched_around(placed)
    assert {y.dtype, grads.dx.dtype} == {case.dtype}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_results_may_go_over_what_is_read_last(dtype: Any, data: st.DataObject) -> None:
    """Inference into x, and dx into dy: the bits of what goes elsewhere."""
    case = data.draw(cases(dtype))
    options, values = dict(case.options), drawn_values(case)
    options["axis"] = case.axis
    small = [values[k] for k in ("gamma", "beta", "running_mean", "running_var")]
    there = placed_like(values, case)
    if not options["train"]:
        x = place(values["x"], case.memory["x"])
        want, _ = bnkit.batch_norm(there["x"].array, *small, residual=values["residual"], **options)
        y, _ = bnkit.batch_norm(x.array, *small, residual=values["residual"], out=x.array, **options)
        assert y is x.array
        np.testing.assert_array_equal(y, want)
        assert is_untouched_around(x)
    _, cache = bnkit.batch_norm(there["x"].array, *small, residual=values["residual"], **options)
    wanted = bnkit.batch_norm_backward(values["dy"], cache)
    dy = place(values["dy"], case.memory["x"])
    grads = bnkit.batch_norm_backward(dy.array, cache, out=dy.array)
    assert grads.dx is dy.array
    for got, want in zip(grads, wanted, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            np.testing.assert_array_equal(got, want)
    assert is_untouched_around(dy)
