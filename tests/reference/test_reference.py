"""`bnkit.reference` against the textbook in longdouble, and its gradients against central differences."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import textbook
from hypothesis import given
from hypothesis import strategies as st

import bnkit
from bnkit import reference
from bnkit.testing.gradients import numerical_gradient

VIEW_AXIS = (0, 2)  # the channels of (groups, rows, channels, inner)
# Arithmetic is in float64, so what is lost is the rounding of the result: half an ulp, doubled.
ROUNDING = {"float64": 1e-13, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
DTYPES = [np.dtype("float64"), np.dtype("float32"), np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]

shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 4), st.integers(1, 5))
NOTHING: dict[str, Any] = dict.fromkeys(("gamma", "beta", "mask", "residual", "activation"))
options = st.fixed_dictionaries(
    {
        "mask": st.booleans(),
        "residual": st.booleans(),
        "activation": st.sampled_from([None, "relu"]),
        "gamma": st.booleans(),
        "beta": st.booleans(),
    }
)


class Drawn:
    """Random arrays of one shape; those that an option leaves out are None."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], seed: int, given: dict[str, Any]) -> None:
        rng = np.random.default_rng(seed)
        small = np.float64 if dtype == np.float64 else np.float32
        parameters = (shape[0], shape[2])
        self.x, self.dy, residual = (rng.normal(m, 1.3, shape).astype(dtype) for m in (2.0, 0.3, 0.0))
        gamma, beta, self.running_mean = (rng.normal(size=parameters).astype(small) for _ in range(3))
        self.running_var = rng.uniform(0.5, 2, parameters).astype(small)
        self.gamma = gamma if given["gamma"] else None
        self.beta = beta if given["beta"] else None
        self.residual = residual if given["residual"] else None
        self.mask = rng.random(shape) < 0.6 if given["mask"] else None
        self.activation = given["activation"]
        self.small = np.dtype(small)

    def extra(self) -> dict[str, Any]:
        return {"residual": self.residual, "activation": self.activation}


def close(got: Any, want: Any, tolerance: float, scale: Any = 1.0) -> None:
    largest = float(ml_dtypes.finfo(got.dtype).max)
    got, want = textbook.wide(got), textbook.wide(want)
    assert got.shape == want.shape
    bound = tolerance * np.broadcast_to(np.maximum(np.abs(want), scale), want.shape)
    held = np.abs(want) < largest  # what is more than the dtype can hold is infinite
    assert np.all(np.isinf(got[~held]))
    off = np.abs(got[held] - want[held])
    assert np.all(off <= bound[held]), np.max(off / bound[held])


@given(shape=shapes, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32), given_=options)
def test_training_is_the_textbooks(
    shape: tuple[int, ...], dtype: np.dtype[Any], seed: int, given_: dict[str, Any]
) -> None:
    d = Drawn(shape, dtype, seed, given_)
    arguments = (d.x, d.gamma, d.beta, d.running_mean, d.running_var)
    want = textbook.forward(*arguments, axis=VIEW_AXIS, decay=0.7, mask=d.mask, **d.extra())
    gradients = textbook.backward(d.dy, *arguments, axis=VIEW_AXIS, mask=d.mask, **d.extra())
    of_train = reference.TrainArguments(*arguments, decay=0.7, eps=1e-5, correction=1, mask=d.mask, **d.extra())
    got = reference.batch_norm_train(np, of_train)
    assert got.y.dtype == dtype
    # close values of x make rstd large, up to 1 / sqrt(eps), and with it what float64 has lost in x - mean
    scale = np.maximum(1, got.rstd)[:, None, :, None]
    close(got.y, want.y, ROUNDING[dtype.name], scale)
    close(d.running_mean, want.running_mean, ROUNDING[d.small.name])
    close(d.running_var, want.running_var, ROUNDING[d.small.name])
    args = reference.BackwardArguments(
        d.dy, d.x, d.gamma, d.beta, got.moments.mean, got.rstd,
        train=True, count=got.moments.count, mask=d.mask, activation=d.activation, active=got.active,
        residual=d.residual is not None,
    )  # fmt: skip
    back = reference.batch_norm_backward(np, args)
    assert (back.dx.dtype, back.dgamma.dtype, back.dbeta.dtype) == (dtype, d.small, d.small)
    close(back.dx, gradients.dx, ROUNDING[dtype.name], scale**2)
    close(back.dgamma, gradients.dgamma, ROUNDING[d.small.name], scale[:, 0, :, 0] * shape[1] * shape[3])
    close(back.dbeta, gradients.dbeta, ROUNDING[d.small.name], shape[1] * shape[3])
    if d.residual is not None:
        close(back.dresidual, gradients.dresidual, ROUNDING[dtype.name])


@given(shape=shapes, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32), given_=options)
def test_inference_is_the_textbooks(
    shape: tuple[int, ...], dtype: np.dtype[Any], seed: int, given_: dict[str, Any]
) -> None:
    d = Drawn(shape, dtype, seed, {**given_, "mask": False})
    arguments = (d.x, d.gamma, d.beta, d.running_mean, d.running_var)
    want = textbook.forward(*arguments, train=False, axis=VIEW_AXIS, **d.extra())
    gradients = textbook.backward(d.dy, *arguments, train=False, axis=VIEW_AXIS, **d.extra())
    y, active = reference.batch_norm_inference(np, reference.InferenceArguments(*arguments, eps=1e-5, **d.extra()))
    close(y, want.y, ROUNDING[dtype.name])
    rstd = reference.reciprocal_std(np, d.running_var, 1e-5)
    args = reference.BackwardArguments(
        d.dy, d.x, d.gamma, d.beta, d.running_mean.astype(np.float64), rstd,
        train=False, activation=d.activation, active=active, residual=d.residual is not None,
    )  # fmt: skip
    back = reference.batch_norm_backward(np, args)
    close(back.dx, gradients.dx, ROUNDING[dtype.name])
    close(back.dgamma, gradients.dgamma, ROUNDING[d.small.name], shape[1] * shape[3])
    close(back.dbeta, gradients.dbeta, ROUNDING[d.small.name], shape[1] * shape[3])


@given(shape=shapes, seed=st.integers(0, 2**32), correction=st.sampled_from([0, 1]), decay=st.floats(-2, 2))
def test_running_statistics_take_the_correction_and_the_decay(
    shape: tuple[int, ...], seed: int, correction: int, decay: float
) -> None:
    d = Drawn(
        shape,
        np.dtype(np.float64),
        seed,
        dict.fromkeys(("gamma", "beta", "residual", "activation"), None) | {"mask": True},
    )
    arguments = (d.x, None, None, d.running_mean, d.running_var)
    settings: dict[str, Any] = {"decay": decay, "correction": correction, "mask": d.mask}
    want = textbook.forward(*arguments, axis=VIEW_AXIS, **settings)
    reference.batch_norm_train(np, reference.TrainArguments(*arguments, eps=1e-5, **settings))
    close(d.running_mean, want.running_mean, 1e-13)
    close(d.running_var, want.running_var, 1e-13)


@given(shape=shapes, seed=st.integers(0, 2**32))
def test_gradient_sums_are_the_gradients_of_beta_and_gamma(shape: tuple[int, ...], seed: int) -> None:
    d = Drawn(
        shape,
        np.dtype(np.float64),
        seed,
        {"gamma": True, "beta": True, "mask": False, "residual": False, "activation": "relu"},
    )
    want = textbook.backward(d.dy, d.x, d.gamma, d.beta, axis=VIEW_AXIS, activation="relu")
    moments = reference.batch_norm_moments(np, reference.MomentsArguments(d.x))
    rstd = reference.reciprocal_std(np, reference.variance(np, moments, 0), 1e-5)
    args = reference.GradientSumsArguments(d.dy, d.x, d.gamma, d.beta, moments.mean, rstd, activation="relu")
    dbeta, dgamma = reference.batch_norm_gradient_sums(np, args)
    close(dbeta, want.dbeta, 1e-13, shape[1] * shape[3])
    close(dgamma, want.dgamma, 1e-13, rstd * shape[1] * shape[3])


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_packed_bits_come_back(flags: list[bool]) -> None:
    packed = reference.pack_bits(np, np.array(flags))
    assert packed.dtype == np.uint8
    assert packed.size == -(-len(flags) // 8)
    assert reference.unpack_bits(np, packed, (len(flags),)).tolist() == flags


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)  # philox4x32-10 in Random123's kat_vectors
def test_uniform_gives_the_published_philox_words(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    drawn = reference.uniform(np, np.array([counter[0]], np.uint64), key, counter[1:])
    assert drawn.dtype == np.float32
    assert drawn[0].tolist() == [(word >> 8) / 2**24 for word in words]


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5)),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["labels", "weights", "shared labels", "shared weights"]),
)
def test_softmax_cross_entropy_is_the_textbooks(shape: tuple[int, ...], seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 20, shape)
    target = rng.integers(0, shape[2], shape[:2]) if "labels" in kind else rng.random(shape)
    if "shared" in kind:
        target = target[0]
    loss, gradient = reference.softmax_cross_entropy(np, logits, target)
    weights = np.eye(shape[2])[target] if "labels" in kind else target
    for s in range(shape[0]):
        own = weights if "shared" in kind else weights[s]
        expected = np.longdouble(0)
        for row in range(shape[1]):
            e = np.exp(textbook.wide(logits[s, row]) - logits[s, row].max())
            p = e / e.sum()
            expected += -(own[row] * np.log(p)).sum() / shape[1]
            close(gradient[s, row], (p * own[row].sum() - own[row]) / shape[1], 1e-13)
        close(loss[s], expected, 1e-13)


AXES: list[tuple[tuple[int, ...], int | tuple[int, ...]]] = [
    ((5, 3), 1),
    ((3, 2, 2, 3), 1),
    ((2, 2, 3, 2), -1),
    ((3, 2, 2, 2), (1, 2, 3)),
    ((2, 4, 3), (0, 2)),
    ((4, 3), 0),
    ((2, 2, 2, 3), (0, 1)),
]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "relu": {"activation": "relu"},
    "residual": {"residual": True},
    "residual and relu": {"residual": True, "activation": "relu"},
    "mask": {"mask": True},
    "mask, residual and relu": {"mask": True, "residual": True, "activation": "relu"},
    "inference": {"train": False},
    "inference, residual and relu": {"train": False, "residual": True, "activation": "relu"},
    "without parameters": {"bare": True},
}


def check_gradients(shape: tuple[int, ...], axis: int | tuple[int, ...], variant: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(shape) * 100 + sum(shape))
    axes = axis if isinstance(axis, tuple) else (axis,)
    kept = tuple(shape[a] for a in sorted(a % len(shape) for a in axes))
    arrays = {"x": rng.normal(1, 1, shape), "gamma": rng.normal(size=kept), "beta": rng.normal(size=kept)}
    call: dict[str, Any] = {"train": True, "axis": axis, **variant}
    if call.pop("bare", False):
        del arrays["gamma"], arrays["beta"]
    if call.pop("residual", False):
        arrays["residual"] = rng.normal(size=shape)
    if call.pop("mask", False):
        call["mask"] = rng.random(shape) < 0.75
    running = (rng.normal(size=kept), rng.uniform(0.5, 2, kept)) if not call["train"] else (None, None)
    dy = rng.normal(size=shape)

    def run() -> tuple[Any, Any]:
        parameters = (arrays.get("gamma"), arrays.get("beta"))
        return bnkit.batch_norm(arrays["x"], *parameters, *running, **call, residual=arrays.get("residual"))

    def loss() -> Any:
        return np.sum(run()[0] * dy)

    grads = bnkit.batch_norm_backward(dy, run()[1])
    for name, array in arrays.items():
        expected = numerical_gradient(loss, array, h=1e-6)
        # h = 1e-6: rounding of the loss, about 1e-15, over h, and h² times a third derivative of up to rstd³
        np.testing.assert_allclose(getattr(grads, f"d{name}"), expected, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
def test_gradients_are_central_differences(shape: tuple[int, ...], axis: int | tuple[int, ...], variant: str) -> None:
    check_gradients(shape, axis, VARIANTS[variant])


@pytest.mark.parametrize("variant", ["plain", "residual and relu", "mask, residual and relu"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((7, 3), 1), ((5, 2, 2, 2), 1), ((5, 2, 2), -1), ((2, 5, 3), (0, 2)), ((5, 2, 2), (1, 2))],
    ids=str,
)
def test_gradients_with_ghost_batches_are_central_differences(
    shape: tuple[int, ...], axis: int | tuple[int, ...], variant: str
) -> None:
    check_gradients(shape, axis, {**VARIANTS[variant], "ghost": 2})


def test_the_textbook_itself_agrees_with_central_differences() -> None:
    rng = np.random.default_rng(3)
    x, gamma, beta = (textbook.wide(rng.normal(size=s)) for s in ((5, 2, 3), (2,), (2,)))
    dy, residual, mask = rng.normal(size=x.shape), rng.normal(size=x.shape), rng.random(x.shape) < 0.7
    settings: dict[str, Any] = {"mask": mask, "residual": residual, "activation": "relu", "ghost": 3}
    gradients = textbook.backward(dy, x, gamma, beta, **settings)

    def difference(array: Any, index: Any, f: Callable[[], Any]) -> Any:
        before, values = array[index], []
        for step in (1e-6, -1e-6):
            array[index] = before + step
            values.append(f())
        array[index] = before
        return (values[0] - values[1]) / 2e-6

    def loss() -> Any:
        return (textbook.forward(x, gamma, beta, **settings).y * dy).sum()

    for array, gradient in ((x, gradients.dx), (gamma, gradients.dgamma), (beta, gradients.dbeta)):
        expected = [difference(array, index, loss) for index in np.ndindex(array.shape)]
        # h² times a third derivative, and on platforms where longdouble is double its rounding over h
        np.testing.assert_allclose(gradient.ravel().astype(float), np.array(expected, float), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("power", [531, -565, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_squares_that_leave_float64_cost_no_bit(power: int, masked: bool) -> None:
    """A power of two comes out again as it went in."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 1, 9, 4, 5))
    results = []
    for values in (x, np.ldexp(x, power)):
        mask = rng.random(x.shape) < 2 if masked else None
        settings: dict[str, Any] = {"decay": 0.9, "eps": 0.0, "correction": 1, "mask": mask}
        made = reference.batch_norm_train(np, reference.TrainArguments(values, None, None, None, None, **settings))
        options: dict[str, Any] = {"train": True, "count": made.moments.count, "mask": mask}
        args = reference.BackwardArguments(dy, values, None, None, made.moments.mean, made.rstd, **options)
        dx = reference.batch_norm_backward(np, args).dx
        results.append((made.y, made.moments.mean, dx))
    for near, far, by in zip(*results, (0, power, -power), strict=True):
        np.testing.assert_array_equal(np.ldexp(near, by), far)


@pytest.mark.parametrize("sign", [1, -1])
def test_dx_is_right_where_gamma_over_std_leaves_float64(sign: int) -> None:
    x = np.zeros((1, 3, 2, 1))
    dy, large = np.full(x.shape, 2.0 ** (-900 * sign)), np.full((1, 2), 2.0 ** (700 * sign))
    args = reference.BackwardArguments(dy, x, large, None, np.zeros((1, 2)), large, train=False)
    dx = reference.batch_norm_backward(np, args).dx
    np.testing.assert_array_equal(dx, np.full(x.shape, 2.0 ** (500 * sign)))
