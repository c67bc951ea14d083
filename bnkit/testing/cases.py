"""What the checks run: host data over shapes, dtypes and options, on a backend and on the oracle, compared."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bnkit import reference
from bnkit.backend import Array, Backend

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


def dtypes(backend: Backend) -> Iterator[Any]:
    """Those of the four storage types that the backend takes."""
    for name in TOLERANCE:
        with contextlib.suppress(ImportError, TypeError, ValueError, AttributeError):
            dtype = importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name
            backend.asarray(np.ones(2, dtype))
            yield np.dtype(dtype)


def cases(backend: Backend, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> Iterator[tuple[str, Data]]:
    for dtype in dtypes(backend):
        for shape in shapes:
            yield f"{dtype.name} {shape}", make_data(shape, dtype)


def make_data(shape: tuple[int, ...], dtype: Any = "float32", *, mean: float = 0.5, std: float = 1.5) -> Data:
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


def compare(label: str, backend: Backend, got: Any, want: Any, tolerance: float) -> None:
    """Absolute below 1, relative above."""
    got = backend.to_numpy(got).astype(np.float64)
    assert got.shape == np.shape(want), f"{label}: shape {got.shape}, expected {np.shape(want)}"
    if not np.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True):
        worst = np.nanmax(np.abs(got - want), initial=0.0) if np.isfinite(got).all() else np.inf
        raise AssertionError(f"{label}: off by up to {worst:.3g}, allowed {tolerance:.3g}")


def sum_tolerance(dtype: np.dtype[Any], count: int = 1) -> float:
    """The tolerance of a sum over `count` terms, which is never in less than float32: rounding walks at random."""
    return float(np.sqrt(count)) * (TOLERANCE["float64"] if dtype == np.float64 else TOLERANCE["float32"])


def widen(a: Host) -> Host:
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

    y: Any
    backward: reference.BatchNormBackward
    mean: Any
    rstd: Any


def run_ops(
    ops: Any, to: Callable[[Any], Array], data: Data, options: Options, *, train: bool = True, out: bool = False
) -> Result:
    """Forward and backward by a backend, or by `Oracle`; `out`: into memory full of NaN."""

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
        y, moments, rstd, active = ops.batch_norm_train(
            reference.TrainArguments(*arrays, decay=0.9, correction=1, mask=mask, out=y_out, **both)
        )
        mean, count = moments.mean, moments.count
    else:
        mean, rstd = to(widen(data.running_mean)), to(1 / np.sqrt(widen(data.running_var) + EPS))
        running = (to(data.running_mean), to(data.running_var))
        y, active = ops.batch_norm_inference(reference.InferenceArguments(x, gamma, beta, *running, out=y_out, **both))
    assert not out or y is y_out, "the forward must return the `out` that it was given"
    extra: dict[str, Any] = {"mask": mask, "activation": options.activation, "active": active}
    gradients = ops.batch_norm_backward(
        reference.BackwardArguments(
            dy, x, gamma, beta, mean, rstd, train=train, count=count, residual=options.residual, out=dx_out, **extra
        )
    )
    assert not out or gradients.dx is dx_out, "the backward must return the `out` that it was given"
    return Result(y, gradients, mean, rstd)


class Oracle:
    """`bnkit.reference` over NumPy, called as a backend is."""

    def __getattr__(self, op: str) -> Callable[..., Any]:
        return lambda *args, **options: getattr(reference, op)(np, *args, **options)


def away_from_kink(data: Data, options: Options, train: bool) -> Data:
    """No gradient arrives where the input of the ReLU is so near 0 that rounding decides."""
    if options.activation is None:
        return data
    y = run_ops(Oracle(), to_oracle, data, options._replace(activation=None), train=train).y
    return data._replace(dy=np.where(np.abs(y) < 1e-3, 0, data.dy).astype(data.dy.dtype))


def to_oracle(a: Host) -> Host:
    return a if a.dtype == np.bool_ else widen(a)


def on_both(backend: Backend, *, train: bool, shapes: Any = SHAPES, out: bool = False) -> Iterator[Any]:
    for label, data in cases(backend, shapes):
        for options in OPTIONS:
            kept = away_from_kink(data, options, train)
            got = run_ops(backend, backend.asarray, kept, options, train=train, out=out)
            want = run_ops(Oracle(), to_oracle, kept, options, train=train)
            yield f"{label} {options}", kept, got, want


def compare_backward(label: str, backend: Backend, data: Data, got: Result, want: Result) -> None:
    tolerance, count = TOLERANCE[data.x.dtype.name], data.x.shape[1] * data.x.shape[3]
    # dx is of the size of rstd, which two rows can make large
    scale = max(1.0, float(np.max(want.rstd)))
    compare(f"dx of {label}", backend, got.backward.dx, want.backward.dx, tolerance * scale)
    for name in ("dgamma", "dbeta"):
        values = (getattr(got.backward, name), getattr(want.backward, name))
        compare(f"{name} of {label}", backend, *values, sum_tolerance(data.x.dtype, count))
    if want.backward.dresidual is None:
        assert got.backward.dresidual is None, f"dresidual of {label} without a residual"
    else:
        compare(f"dresidual of {label}", backend, got.backward.dresidual, want.backward.dresidual, tolerance)
