"""The conformance suite of a backend: what its ops must give, whoever wrote them.

    for check in backend_checks():
        check(backend)

The oracle is `bnkit.reference` over NumPy, in float64, on the very values that were stored. Ops are called with the
4-D view `(groups, rows, channels, inner)`. A check raises AssertionError.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from . import reference
from .backend import Array, Backend

Check = Callable[[Backend], None]
Host = np.ndarray[Any, Any]

SHAPES = (
    (1, 100, 100, 1),
    (1, 7, 1, 1),  # one channel
    (1, 2, 3, 1),  # two rows
    (1, 13, 5, 11),  # primes, with an inner axis
    (3, 17, 5, 1),  # groups
    (2, 3, 4, 9),  # groups and an inner axis
    (1, 1, 2, 37),  # one row
    (1, 1000, 33, 1),  # more than one tile
    (1, 3, 2, 1031),
)
SMALL = SHAPES[1:6]
# Half an ulp of an output of size 8, with room for the few roundings of a kernel that computes in float32.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}
EPS = 1e-5


class Data(NamedTuple):
    """Host arrays in storage precision."""

    x: Host
    dy: Host
    residual: Host
    mask: Host
    gamma: Host
    beta: Host
    running_mean: Host
    running_var: Host


def backend_checks() -> list[Check]:
    """Every check, as a function of the backend; its name is a sentence."""
    return list(_CHECKS)


_CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    _CHECKS.append(function)
    return function


def _dtypes(backend: Backend) -> Iterator[Any]:
    """Those of the four storage types that the backend takes."""
    for name in TOLERANCE:
        with contextlib.suppress(ImportError, TypeError, ValueError, AttributeError):
            dtype = importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name
            backend.asarray(np.ones(2, dtype))
            yield np.dtype(dtype)


def _cases(backend: Backend, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> Iterator[tuple[str, Data]]:
    for dtype in _dtypes(backend):
        for shape in shapes:
            yield f"{dtype.name} {shape}", _data(shape, dtype)


def _data(shape: tuple[int, ...], dtype: Any = "float32", *, mean: float = 0.5, std: float = 1.5) -> Data:
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(shape)
    groups, rows, channels, _ = shape
    small = np.float64 if dtype == np.float64 else np.float32

    def parameter(low: float, high: float) -> Host:
        return rng.uniform(low, high, (groups, channels)).astype(small)

    x, dy, residual = (rng.normal(m, s, shape).astype(dtype) for m, s in ((mean, std), (0.2, 1.0), (0.0, 1.0)))
    mask = rng.random((groups, rows, 1, 1)) < 0.7
    mask[:, :2] = True  # enough for a variance
    gamma = parameter(0.5, 1.5) * rng.choice([-1, 1], (groups, channels)).astype(small)
    running = (parameter(-1, 1), parameter(0.5, 2))
    return Data(x, dy, residual, np.broadcast_to(mask, shape), gamma, parameter(-1, 1), *running)


def _compare(label: str, backend: Backend, got: Array, want: Any, tolerance: float) -> None:
    """Absolute below 1, relative above."""
    got = backend.to_numpy(got).astype(np.float64)
    assert got.shape == np.shape(want), f"{label}: shape {got.shape}, expected {np.shape(want)}"
    if not np.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True):
        worst = np.nanmax(np.abs(got - want), initial=0.0) if np.isfinite(got).all() else np.inf
        raise AssertionError(f"{label}: off by up to {worst:.3g}, allowed {tolerance:.3g}")


def _small(dtype: np.dtype[Any], count: int = 1) -> float:
    """The tolerance of a sum over `count` terms, which is never in less than float32: rounding walks at random."""
    return float(np.sqrt(count)) * (TOLERANCE["float64"] if dtype == np.float64 else TOLERANCE["float32"])


def _wide(a: Host) -> Host:
    return a.astype(np.float64)


class Options(NamedTuple):
    """Which parts of the op a case uses."""

    gamma: bool = True
    beta: bool = True
    mask: bool = False
    residual: bool = False
    activation: str | None = None


OPTIONS = (
    Options(),
    Options(gamma=False),
    Options(beta=False),
    Options(mask=True),
    Options(activation="relu"),
    Options(residual=True),
    Options(residual=True, activation="relu"),
    Options(False, False, True, True, "relu"),
)


class Result(NamedTuple):
    """One forward, and the backward that follows it."""

    y: Array
    backward: reference.BatchNormBackward
    mean: Array
    rstd: Array


def _run(
    ops: Any, to: Callable[[Any], Array], data: Data, options: Options, *, train: bool = True, out: bool = False
) -> Result:
    """Forward and backward by a backend, or by `_Oracle`; `out`: into memory full of NaN."""

    def poisoned() -> Array | None:
        return to(np.full_like(data.x, np.nan)) if out else None

    x, dy = to(data.x), to(data.dy)
    gamma = to(data.gamma) if options.gamma else None
    beta = to(data.beta) if options.beta else None
    residual = to(data.residual) if options.residual else None
    mask = to(data.mask) if options.mask and train else None
    both: dict[str, Any] = {"residual": residual, "activation": options.activation, "eps": EPS}
    count = None
    y_out, dx_out = poisoned(), poisoned()
    if train:
        arrays = (x, gamma, beta, None, None)
        y, moments, rstd, active = ops.batch_norm_train(*arrays, decay=0.9, correction=1, mask=mask, out=y_out, **both)
        mean, count = moments.mean, moments.count
    else:
        mean, rstd = to(_wide(data.running_mean)), to(1 / np.sqrt(_wide(data.running_var) + EPS))
        running = (to(data.running_mean), to(data.running_var))
        y, active = ops.batch_norm_inference(x, gamma, beta, *running, out=y_out, **both)
    assert not out or y is y_out, "the forward must return the `out` that it was given"
    extra: dict[str, Any] = {"mask": mask, "activation": options.activation, "active": active}
    gradients = ops.batch_norm_backward(
        dy, x, gamma, beta, mean, rstd, train=train, count=count, residual=options.residual, out=dx_out, **extra
    )
    assert not out or gradients.dx is dx_out, "the backward must return the `out` that it was given"
    return Result(y, gradients, mean, rstd)


class _Oracle:
    """`bnkit.reference` over NumPy, called as a backend is."""

    def __getattr__(self, op: str) -> Callable[..., Any]:
        return lambda *args, **options: getattr(reference, op)(np, *args, **options)


def _away_from_kink(data: Data, options: Options, train: bool) -> Data:
    """No gradient arrives where the input of the ReLU is so near 0 that rounding decides."""
    if options.activation is None:
        return data
    y = _run(_Oracle(), _to_oracle, data, options._replace(activation=None), train=train).y
    return data._replace(dy=np.where(np.abs(y) < 1e-3, 0, data.dy).astype(data.dy.dtype))


def _to_oracle(a: Host) -> Host:
    return a if a.dtype == np.bool_ else _wide(a)


def _both(backend: Backend, *, train: bool, shapes: Any = SHAPES, out: bool = False) -> Iterator[Any]:
    for label, data in _cases(backend, shapes):
        for options in OPTIONS:
            kept = _away_from_kink(data, options, train)
            got = _run(backend, backend.asarray, kept, options, train=train, out=out)
            want = _run(_Oracle(), _to_oracle, kept, options, train=train)
            yield f"{label} {options}", kept, got, want


def _compare_backward(label: str, backend: Backend, data: Data, got: Result, want: Result) -> None:
    tolerance, count = TOLERANCE[data.x.dtype.name], data.x.shape[1] * data.x.shape[3]
    # dx is of the size of rstd, which two rows can make large
    scale = max(1.0, float(np.max(want.rstd)))
    _compare(f"dx of {label}", backend, got.backward.dx, want.backward.dx, tolerance * scale)
    for name in ("dgamma", "dbeta"):
        values = (getattr(got.backward, name), getattr(want.backward, name))
        _compare(f"{name} of {label}", backend, *values, _small(data.x.dtype, count))
    if want.backward.dresidual is None:
        assert got.backward.dresidual is None, f"dresidual of {label} without a residual"
    else:
        _compare(f"dresidual of {label}", backend, got.backward.dresidual, want.backward.dresidual, tolerance)


@_check
def moments_are_those_of_the_reference(backend: Backend) -> None:
    """Count, mean and squared distances, with and without a mask."""
    for label, data in _cases(backend):
        for mask in (None, data.mask):
            got = backend.batch_norm_moments(
                backend.asarray(data.x), mask=None if mask is None else backend.asarray(mask)
            )
            want = reference.batch_norm_moments(np, _wide(data.x), mask=mask)
            for name, g, w in zip(want._fields, got, want):
                _compare(f"{name} of {label}", backend, g, w, _small(data.x.dtype, data.x.shape[1]))


@_check
def training_forward_and_backward_are_those_of_the_reference(backend: Backend) -> None:
    """y, dx, dgamma, dbeta, dresidual with every option."""
    for label, data, got, want in _both(backend, train=True):
        _compare(f"y of {label}", backend, got.y, want.y, TOLERANCE[data.x.dtype.name])
        _compare_backward(label, backend, data, got, want)


@_check
def inference_and_its_backward_are_those_of_the_reference(backend: Backend) -> None:
    """The running statistics are constants."""
    for label, data, got, want in _both(backend, train=False):
        _compare(f"y of {label}", backend, got.y, want.y, TOLERANCE[data.x.dtype.name])
        _compare_backward(label, backend, data, got, want)


@_check
def out_is_returned_and_written_whole(backend: Backend) -> None:
    """Forward, inference and backward into memory full of NaN."""
    for train in (True, False):
        for label, data, got, want in _both(backend, train=train, shapes=SMALL, out=True):
            _compare(f"y of {label}", backend, got.y, want.y, TOLERANCE[data.x.dtype.name])
            _compare_backward(label, backend, data, got, want)


@_check
def out_may_be_x_in_inference_and_dy_in_backward(backend: Backend) -> None:
    """The two cases in which an op writes over what it reads."""
    for label, data in _cases(backend, SMALL):
        small = [backend.asarray(a) for a in (data.gamma, data.beta, data.running_mean, data.running_var)]
        x, dy = backend.asarray(data.x.copy()), backend.asarray(data.dy.copy())
        want = _run(_Oracle(), _to_oracle, data, Options(), train=False)
        y, _ = backend.batch_norm_inference(x, *small, eps=EPS, out=x)
        _compare(f"y over x of {label}", backend, y, want.y, TOLERANCE[data.x.dtype.name])
        x, mean, rstd = (backend.asarray(a) for a in (data.x, want.mean, want.rstd))
        dx = backend.batch_norm_backward(dy, x, small[0], small[1], mean, rstd, train=False, out=dy).dx
        _compare(f"dx over dy of {label}", backend, dx, want.backward.dx, TOLERANCE[data.x.dtype.name])


@_check
def running_statistics_move_as_in_the_reference(backend: Backend) -> None:
    """In place, for any decay and both corrections, by the unmasked elements."""
    for label, data in _cases(backend):
        for decay in (0.9, 0.0, 1.0, -0.2):
            for correction in (0, 1):
                for mask in (None, data.mask):
                    running = [backend.asarray(a.copy()) for a in (data.running_mean, data.running_var)]
                    want = [_wide(a) for a in (data.running_mean, data.running_var)]
                    settings: dict[str, Any] = {"decay": decay, "eps": EPS, "correction": correction}
                    masked = None if mask is None else backend.asarray(mask)
                    backend.batch_norm_train(backend.asarray(data.x), None, None, *running, mask=masked, **settings)
                    _Oracle().batch_norm_train(_wide(data.x), None, None, *want, mask=mask, **settings)
                    case = f"{label}, decay {decay}, correction {correction}, mask {mask is not None}"
                    for name, got, w in zip(("mean", "var"), running, want):
                        _compare(f"running_{name} of {case}", backend, got, w, _small(data.x.dtype))


@_check
def a_channel_without_elements_gives_beta_and_moves_nothing(backend: Backend) -> None:
    """Where the mask leaves nothing, or NaN lies under it; and dx is 0 there. One element moves only the mean."""
    for label, data in _cases(backend, SMALL):
        if data.x.shape[2] == 1:
            continue
        mask, x = data.mask.copy(), data.x.copy()
        mask[:, :, 0] = False
        mask[:, :, 1] = False
        mask[:, :1, 1, :1] = True
        x[:, :1, 0] = np.nan
        host = [data.gamma, data.beta, data.running_mean, data.running_var]
        arrays = [backend.asarray(a.copy()) for a in host]
        x_there, mask_there = backend.asarray(x), backend.asarray(mask)
        settings: dict[str, Any] = {"decay": 0.5, "eps": EPS, "correction": 1}
        y, moments, rstd, _ = backend.batch_norm_train(x_there, *arrays, mask=mask_there, **settings)
        small = _small(data.x.dtype)
        beta = np.broadcast_to(data.beta[:, None, :1, None], y[:, :, :1, :].shape).astype(data.x.dtype)
        _compare(f"y of an empty channel, {label}", backend, y[:, :, :1, :], _wide(beta), 0.0)
        _compare(f"running_mean of it, {label}", backend, arrays[2][:, :1], _wide(data.running_mean[:, :1]), 0.0)
        _compare(f"running_var of it, {label}", backend, arrays[3][:, :2], _wide(data.running_var[:, :2]), 0.0)
        moved = 0.5 * _wide(data.running_mean[:, 1]) + 0.5 * _wide(x[:, 0, 1, 0])
        _compare(f"running_mean of one element, {label}", backend, arrays[2][:, 1], moved, small)
        extra: dict[str, Any] = {"train": True, "count": moments.count, "mask": mask_there}
        arguments = (backend.asarray(data.dy), x_there, arrays[0], arrays[1], moments.mean, rstd)
        gradients = backend.batch_norm_backward(*arguments, **extra)
        _compare(f"dx of it, {label}", backend, gradients.dx[:, :, :1, :], np.zeros(y[:, :, :1, :].shape), 0.0)


@_check
def gradient_sums_are_those_of_the_reference_and_replace_the_own_ones(backend: Backend) -> None:
    """What ranks add up: half the rows each give the gradient of the whole."""
    for label, data in _cases(backend, SHAPES[3:6]):
        for options in OPTIONS:
            data = _away_from_kink(data, options, True)
            whole = _run(_Oracle(), _to_oracle, data, options._replace(residual=False))
            if options.residual:
                continue
            rest = [backend.asarray(a) for a in (data.gamma, data.beta, whole.mean, whole.rstd)]
            mask = data.mask if options.mask else np.ones_like(data.mask)
            rest[:2] = [a if keep else None for a, keep in zip(rest, (options.gamma, options.beta))]
            count = backend.asarray(mask.sum(axis=(1, 3)).astype(np.float64))
            parts, cut = [], data.x.shape[1] // 2
            for rows in (slice(None, cut), slice(cut, None)):
                part = [backend.asarray(np.ascontiguousarray(a[:, rows])) for a in (data.dy, data.x, mask)]
                extra = {"mask": part[2] if options.mask else None, "activation": options.activation}
                parts.append((part, extra, backend.batch_norm_gradient_sums(*part[:2], *rest, **extra)))
            sums = (parts[0][2][0] + parts[1][2][0], parts[0][2][1] + parts[1][2][1])
            wide = (whole.backward.dbeta, whole.backward.dgamma)
            for name, got, want in zip(("dy", "dy * x_hat"), sums, wide):
                _compare(f"sum of {name}, {label}", backend, got, want, _small(data.x.dtype, data.x.shape[1]))
            dx = [
                backend.to_numpy(
                    backend.batch_norm_backward(*p[:2], *rest, train=True, count=count, sums=sums, **extra).dx
                )
                for p, extra, _ in parts
            ]
            scale = max(1.0, float(np.max(whole.rstd))) * TOLERANCE[data.x.dtype.name]
            joined = backend.asarray(np.concatenate(dx, axis=1))
            _compare(f"dx from summed sums, {label}", backend, joined, whole.backward.dx, scale)


@_check
def results_have_the_dtype_of_x_and_parameters_at_least_float32(backend: Backend) -> None:
    """y, dx and dresidual are stored as x is; dgamma and dbeta are float32, or float64 for float64."""
    for label, data in _cases(backend, SHAPES[3:4]):
        got = _run(backend, backend.asarray, data, Options(residual=True))
        small = data.gamma.dtype
        expected = (data.x.dtype, data.x.dtype, data.x.dtype, small, small)
        arrays = (got.y, got.backward.dx, got.backward.dresidual, got.backward.dgamma, got.backward.dbeta)
        found = tuple(backend.to_numpy(a).dtype for a in arrays)
        assert found == expected, f"dtypes of y, dx, dresidual, dgamma, dbeta of {label}: {found}, expected {expected}"


@_check
def a_large_mean_costs_no_precision(backend: Backend) -> None:
    """Mean 1e4 at a spread of 1: an E[x²] - m² in float32 has no digit left here."""
    for dtype in (d for d in _dtypes(backend) if d.itemsize >= 4):
        for shape in ((1, 20011, 3, 1), (2, 101, 3, 97)):
            data = _data(shape, dtype, mean=1e4, std=1.0)
            got, want = _run(backend, backend.asarray, data, Options()), _run(_Oracle(), _to_oracle, data, Options())
            # 1e4 / std, times the rounding of float64: what is lost there even by two passes
            tolerance = max(TOLERANCE[dtype.name], 1e-11)
            _compare(f"y of {dtype} {shape}", backend, got.y, want.y, tolerance)
            _compare(f"dx of {dtype} {shape}", backend, got.backward.dx, want.backward.dx, tolerance)
            moments = backend.batch_norm_moments(backend.asarray(data.x))
            exact = reference.batch_norm_moments(np, _wide(data.x))
            _compare(f"mean of {dtype} {shape}", backend, moments.mean - 1e4, exact.mean - 1e4, tolerance)
            _compare(f"m2 of {dtype} {shape}", backend, moments.m2, exact.m2, tolerance)


@_check
def a_constant_input_gives_beta_exactly(backend: Backend) -> None:
    """Whatever the constant, and however many rows."""
    for label, data in _cases(backend):
        constant = np.broadcast_to(data.x[:, :1, :, :1], data.x.shape).copy()
        y = _run(backend, backend.asarray, data._replace(x=constant), Options()).y
        beta = np.broadcast_to(data.beta[:, None, :, None].astype(data.x.dtype), data.x.shape)
        _compare(f"y of {label}", backend, y, _wide(beta), 0.0)


@_check
def values_of_1e30_are_normalized(backend: Backend) -> None:
    """y is right although a float32 holds no square of x; the running variance becomes infinite."""
    data = _data((1, 101, 5, 3))
    x = (data.x * np.float32(1e30)).astype(np.float32)
    running = [backend.asarray(a.copy()) for a in (data.running_mean, data.running_var)]
    result = backend.batch_norm_train(backend.asarray(x), None, None, *running, decay=0.9, eps=EPS, correction=1)
    want = reference.batch_norm_train(np, _wide(x), None, None, None, None, decay=0.9, eps=EPS, correction=1)
    _compare("y", backend, result.y, want.y, TOLERANCE["float32"])
    assert np.isposinf(backend.to_numpy(running[1])).all(), "running_var must become inf"


@_check
def nan_and_infinity_stay_in_their_channel(backend: Backend) -> None:
    """They are no error, and the others keep their bits."""
    for label, data in _cases(backend, ((1, 100, 100, 1), (2, 13, 5, 11))):
        clean = _run(backend, backend.asarray, data, Options(activation="relu"))
        for bad in (np.nan, np.inf):
            x = data.x.copy()
            x[0, 3, 2, -1] = bad
            got = _run(backend, backend.asarray, data._replace(x=x), Options(activation="relu"))
            for name, g, w in (("y", got.y, clean.y), ("dx", got.backward.dx, clean.backward.dx)):
                spoiled, others = backend.to_numpy(g), backend.to_numpy(w)
                assert np.isnan(spoiled[0, 3, 2, -1]) or name == "dx", f"{name} of {label} hides a {bad}"
                hit = np.zeros(data.x.shape, bool)
                hit[0, :, 2] = True
                assert np.array_equal(spoiled[~hit], others[~hit]), f"{name} of {label}: {bad} left its channel"


@_check
def no_rows_give_no_rows_and_move_nothing(backend: Backend) -> None:
    """An empty batch, as a rank without data has it."""
    data = _data((2, 4, 3, 1))
    empty = backend.asarray(data.x[:, :0].copy())
    running = [backend.asarray(a.copy()) for a in (data.running_mean, data.running_var)]
    y, moments, rstd, _ = backend.batch_norm_train(empty, None, None, *running, decay=0.9, eps=EPS, correction=1)
    gradients = backend.batch_norm_backward(
        empty, empty, None, None, moments.mean, rstd, train=True, count=moments.count
    )
    assert y.shape == gradients.dx.shape == (2, 0, 3, 1), f"y {y.shape}, dx {gradients.dx.shape}, expected (2, 0, 3, 1)"
    for name, got, kept in zip(("mean", "var"), running, (data.running_mean, data.running_var)):
        _compare(f"running_{name}", backend, got, _wide(kept), 0.0)
    for name, zero in (("dgamma", gradients.dgamma), ("dbeta", gradients.dbeta)):
        _compare(name, backend, zero, np.zeros((2, 3)), 0.0)


@_check
def inputs_are_left_as_they_were(backend: Backend) -> None:
    """x, dy, residual, mask, gamma, beta, and in inference the running arrays."""
    for label, data in _cases(backend, SMALL):
        given: list[tuple[Host, Array]] = []

        def remember(a: Any, given: list[tuple[Host, Array]] = given) -> Array:
            given.append((a.copy(), backend.asarray(a.copy())))
            return given[-1][1]

        for train in (True, False):
            _run(backend, remember, data, OPTIONS[-2]._replace(mask=True), train=train)
        for before, array in given:
            after = backend.to_numpy(array)
            assert before.tobytes() == after.tobytes(), f"an op wrote to its input of shape {before.shape}, {label}"


@_check
def the_same_call_gives_the_same_bits(backend: Backend) -> None:
    """Sums are added in an order that only the shape decides."""
    for label, data in _cases(backend):
        first, second = (_run(backend, backend.asarray, data, OPTIONS[6]) for _ in range(2))
        for a, b in zip((first.y, *first.backward), (second.y, *second.backward)):
            assert backend.to_numpy(a).tobytes() == backend.to_numpy(b).tobytes(), label


@_check
def softmax_cross_entropy_is_that_of_the_reference(backend: Backend) -> None:
    """Labels or weights, each group's own or shared; large logits do not overflow."""
    rng = np.random.default_rng(5)
    for dtype in _dtypes(backend):
        for shape in ((1, 2), (100, 10), (3, 7, 5), (2, 33, 1)):
            logits = (rng.normal(size=shape) * 30).astype(dtype)
            logits[..., 0, 0] = 1e4
            labels = rng.integers(0, shape[-1], shape[:-1])
            weights = rng.random(shape).astype("float64" if dtype == "float64" else "float32")
            for target in (labels, weights, labels[0], weights[0])[: 4 if len(shape) == 3 else 2]:
                got = backend.softmax_cross_entropy(backend.asarray(logits), backend.asarray(target))
                wide = target if target.dtype == labels.dtype else _wide(target)
                want = reference.softmax_cross_entropy(np, _wide(logits), wide)
                label = f"{dtype} logits {shape}, {target.dtype} target {target.shape}"
                _compare(f"loss of {label}", backend, got[0], want[0], _small(dtype))
                _compare(f"gradient of {label}", backend, got[1], want[1], TOLERANCE[dtype.name])


@_check
def uniform_is_philox(backend: Backend) -> None:
    """Random123's known answer, and other keys by the reference: seeds, layers and steps beyond 32 bits."""
    # philox4x32-10 of counter 0 under key 0, from Random123's kat_vectors
    known = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], np.uint64)
    _compare("uniform of key 0", backend, backend.uniform((0, 0, 0), (4,)), (known >> 8) * 2.0**-24, 0.0)
    for seed, layer, step in ((1, 2, 3), (2**64 - 1, 2**32 - 1, 2**64 - 1), (2**40 + 7, 5, 2**33 + 1)):
        blocks, low = np.arange(26, dtype=np.uint64), 0xFFFFFFFF
        want = reference.uniform(np, blocks, (seed & low, seed >> 32), (layer, step & low, step >> 32))
        got = backend.uniform((seed, layer, step), (101,))
        _compare(f"uniform of {(seed, layer, step)}", backend, got, want.ravel()[:101], 0.0)
        shaped = backend.to_numpy(backend.uniform((seed, layer, step), (5, 4, 3))).ravel()
        _compare(
            f"uniform of {(seed, layer, step)} in a shape", backend, backend.asarray(shaped), want.ravel()[:60], 0.0
        )
    drawn = backend.to_numpy(backend.uniform((7, 0, 0), (10007,)))
    assert drawn.dtype == np.float32, f"uniform must be float32, got {drawn.dtype}"
    assert 0 <= drawn.min() <= drawn.max() < 1, "uniform must lie in [0, 1)"
    assert backend.uniform((7, 0, 0), (0, 3)).shape == (0, 3), "uniform of an empty shape"


@_check
def uniform_has_a_stream_of_its_own_for_each_seed(backend: Backend) -> None:
    """Entry r of the leading axis is what seed r alone gives."""
    drawn = backend.uniform(([3, 2**50, 0], 4, 5), (3, 7, 3))
    for r, seed in enumerate((3, 2**50, 0)):
        alone = backend.to_numpy(backend.uniform((seed, 4, 5), (7, 3)))
        _compare(f"uniform of seed {seed}", backend, drawn[r, ...], _wide(alone), 0.0)


@_check
def arrays_come_back_as_they_went(backend: Backend) -> None:
    """asarray and to_numpy keep bits, dtype and shape, of bool and integers too; asarray converts when asked."""
    rng = np.random.default_rng(0)
    for dtype in (*_dtypes(backend), *map(np.dtype, ("bool", "int64", "uint64", "uint8"))):
        for shape in ((), (0, 3), (5, 7), (2, 3, 4)):
            a = (rng.normal(size=shape) * 50 % 200).astype(dtype)
            for view in (a, a.T):
                back = backend.to_numpy(backend.asarray(view))
                assert (back.dtype, back.shape) == (dtype, view.shape), f"{dtype} {shape} came back as {back.dtype}"
                assert back.tobytes() == view.tobytes(), f"{dtype} {shape} came back with other bits"
    wide = backend.asarray(np.arange(3), dtype=backend.xp.float64)
    assert backend.to_numpy(wide).dtype == np.float64, "asarray must convert to the dtype that it is given"


@_check
def the_view_has_groups_rows_channels_and_inner(backend: Backend) -> None:
    """For each legal axis, with every element in its channel."""
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
    cases: tuple[tuple[Any, Host], ...] = (
        (1, x.reshape(1, 2, 3, 20)),
        (-1, x.reshape(1, 24, 5, 1)),
        (0, x.reshape(1, 1, 2, 60)),
        ((1, 2, 3), x.reshape(1, 2, 60, 1)),
        ((0, 2), x.reshape(2, 3, 4, 5)),
        ((0, 1), x.reshape(1, 1, 6, 20)),
    )
    for axis, want in cases:
        view = backend.view(backend.asarray(x), axis)
        _compare(f"view with axis {axis}", backend, view, _wide(want), 0.0)


@_check
def overlap_is_seen_where_a_write_shows(backend: Backend) -> None:
    """An array overlaps itself and the views that share its memory, and no other."""
    a, b = (backend.asarray(np.random.default_rng(2).normal(size=8).astype(np.float32)) for _ in range(2))
    assert backend.overlap(a, a), "an array overlaps itself"
    assert not backend.overlap(a, b), "two arrays do not overlap"
    part = a[2:5]
    part[...] = part + 1
    if not np.array_equal(backend.to_numpy(a), backend.to_numpy(b)):
        assert backend.overlap(part, a), "a view overlaps the array that a write to it changes"
    assert backend.writeable(a), "a new array is writeable"
