"""Checks of the batch-norm ops at the ends of the range of their numbers."""

from typing import Any, NamedTuple

import numpy as np

from bnkit import reference
from bnkit.backend import Backend
from bnkit.testing.cases import TOLERANCE, Host, compare, dtypes, sum_tolerance

# The least number above 0 that is stored.
LEAST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}


class Powers(NamedTuple):
    """By which powers of two the x, the gamma and the dy of a channel differ from numbers near 1."""

    x: int
    gamma: int
    dy: int


# x_hat, y, dx and dgamma of each can be stored. Of the first of a dtype gamma / std is the same as of numbers near 1,
# and of the others it overflows or vanishes, or the squares of x do, or the products of dy and x.
POWERS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "float32": (
        (40, 40, 0), (-132, 0, -60), (-132, -100, 0), (-75, 75, -70), (124, 0, 60), (125, -33, 70), (110, -60, 100),
        (110, 100, 0), (100, 0, 33), (-60, 70, -60), (60, -70, 30), (-100, -30, -33), (-50, -50, -40),
    ),
    "bfloat16": ((40, 40, 0), (-115, 0, -50), (115, -20, 30), (-60, 70, -60)),
    "float64": (
        (200, 200, 0), (531, 0, 0), (-565, 0, 0), (1020, 300, 500), (-1000, 30, -500), (-900, 300, -900),
        (900, -300, 800), (-500, 600, -600), (500, -600, 300),
    ),
}  # fmt: skip
RANGES = ((1, 100, 5, 1), (2, 13, 5, 7), (1, 1000, 33, 1), (1, 3, 3, 1031))


def values_at_the_ends_of_the_range_are_normalized(backend: Backend) -> None:
    """y, dx and the sums are right where gamma / std, squares or products are more or less than the dtype can hold.

    Every second channel has numbers near 1.
    """
    for dtype in dtypes(backend):
        for shape in RANGES:
            for powers in POWERS.get(dtype.name, ()):
                for residual, activation in ((False, None), (False, "relu"), (True, "relu")):
                    for train in (True, False):
                        _check_range(backend, shape, dtype, Powers(*powers), residual, activation, train)


def a_constant_channel_gives_beta_though_gamma_over_std_overflows(backend: Backend) -> None:
    """Its distances from the mean are 0, whatever they are multiplied by."""
    for dtype in dtypes(backend):
        parameter = np.float64 if dtype == np.float64 else np.float32
        largest = 1.2e308 if dtype == np.float64 else 1.2e38
        for shape in RANGES:
            small = (shape[0], shape[2])
            beta = np.random.default_rng(shape).normal(size=small).astype(parameter)
            x, gamma = backend.asarray(np.full(shape, 3.5, dtype)), backend.asarray(np.full(small, largest, parameter))
            arrays = (x, gamma, backend.asarray(beta), None, None)
            made = backend.batch_norm_train(reference.TrainArguments(*arrays, decay=0.9, eps=0.1, correction=1))
            want = np.broadcast_to(beta.astype(dtype)[:, None, :, None].astype(float), shape)
            compare(f"y of {dtype} {shape}", backend, made.y, want, 0.0)


def the_relu_lets_through_where_y_is_stored_above_zero(backend: Backend) -> None:
    """A value that the dtype rounds to 0 lets no gradient through, with a residual and without, in both modes."""
    for dtype in dtypes(backend):
        parameter = np.float64 if dtype == np.float64 else np.float32
        for inner in (1, 5, 40):
            rounded = _around_half_of(LEAST[dtype.name], parameter)
            shape = (1, 3, rounded.size, inner)
            zeros = np.zeros(shape, dtype)
            for train in (True, False):  # y is beta, since x is its mean
                y = _check_gate(backend, zeros, None, rounded[None, :], train)
                want = np.maximum(rounded.astype(dtype), 0)[None, None, :, None]
                assert np.array_equal(y, np.broadcast_to(want.astype(y.dtype), shape)), f"y of {dtype} {shape}"
            half = int(np.log2(LEAST[dtype.name])) // 2
            x = (np.random.default_rng(inner).uniform(-2, 2, shape) * 2.0**half).astype(dtype)
            gamma = np.full((1, rounded.size), LEAST[dtype.name] / 2 * 2.0**-half, parameter)
            _check_gate(backend, x, gamma, None, False)


def _around_half_of(least: float, dtype: Any) -> Host:
    """0, and numbers of both signs beside half of `least`, `least` and their sum, as far as the dtype holds them."""
    found = [0.0]
    for center in np.array([0.5, 1, 1.5], dtype) * dtype(least):
        below = above = center
        found.append(center)
        for _ in range(3):
            below, above = np.nextafter(below, dtype(-1)), np.nextafter(above, dtype(1))
            found += [below, above]
    numbers = np.array(found, dtype)
    return np.concatenate([numbers, -numbers])


def _check_gate(backend: Backend, x: Host, gamma: Host | None, beta: Host | None, train: bool) -> Host:
    """y, after the gate of each backward was compared with it; in inference x_hat is x."""

    def to(a: Host | None) -> Any:
        return None if a is None else backend.asarray(a)

    parameters, small = (to(gamma), to(beta)), (x.shape[0], x.shape[2])
    there, ones, parameter = to(x), to(np.ones_like(x)), np.float64 if x.dtype == np.float64 else np.float32
    for residual in (None, to(np.zeros_like(x))):
        options: dict[str, Any] = {"residual": residual, "activation": "relu"}
        if train:
            y, moments, rstd, active = backend.batch_norm_train(
                reference.TrainArguments(there, *parameters, None, None, decay=0.9, eps=1.0, correction=1, **options)
            )
            mean, count = moments.mean, moments.count
        else:
            running = (to(np.zeros(small, parameter)), to(np.ones(small, parameter)))
            y, active = backend.batch_norm_inference(
                reference.InferenceArguments(there, *parameters, *running, eps=0.0, **options)
            )
            mean, rstd, count = to(np.zeros(small)), to(np.ones(small)), None
        gate: dict[str, Any] = {"activation": "relu", "active": active}
        arguments = (ones, there, *parameters, mean, rstd)
        grads = backend.batch_norm_backward(
            reference.BackwardArguments(*arguments, train=train, count=count, residual=True, **gate)
        )
        stored = backend.to_numpy(y).astype(np.float64)
        assert grads.dresidual is not None
        passed = backend.to_numpy(grads.dresidual).astype(np.float64)
        label = f"{x.dtype} {x.shape} {'with' if residual is not None else 'without'} a residual, train={train}"
        assert np.array_equal(passed, stored > 0), f"the gate is not where y is above 0, {label}"
        total = backend.to_numpy(
            backend.batch_norm_gradient_sums(reference.GradientSumsArguments(*arguments, **gate))[0]
        )
        assert np.array_equal(total, (stored > 0).sum(axis=(1, 3))), f"the sum of dy passes another gate, {label}"
    return stored


def _check_range(
    backend: Backend,
    shape: tuple[int, ...],
    dtype: Any,
    powers: Powers,
    residual: bool,
    activation: str | None,
    train: bool,
) -> None:
    """Against the reference on the same numbers without their powers of two, which change no digit."""
    rng, small = np.random.default_rng(shape), (shape[0], shape[2])
    parameter = np.float64 if dtype == np.float64 else np.float32
    odd = np.arange(shape[2]) % 2 == 0
    x_power, gamma_power, dy_power = (np.where(odd, power, 0) for power in powers)

    def stored(values: Host, power: Host, kind: Any) -> tuple[Host, Host]:
        """As they are stored, and without the power."""
        power = power[:, None] if values.ndim == 4 else power
        array = np.ldexp(values, power).astype(kind)
        return array, np.ldexp(array.astype(np.float64), -power)

    x, plain_x = stored(rng.normal(0.5, 1.5, shape), x_power, dtype)
    dy, plain_dy = stored(rng.normal(0.2, 1.0, shape), dy_power, dtype)
    added, plain_added = stored(rng.normal(size=shape), gamma_power, dtype)
    gamma, plain_gamma = stored(rng.uniform(0.5, 1.5, small) * rng.choice([-1, 1], small), gamma_power, parameter)
    beta, plain_beta = stored(rng.uniform(-1, 1, small), gamma_power, parameter)
    mean, plain_mean = stored(rng.uniform(-1, 1, small), x_power, np.float64)
    var, plain_var = stored(rng.uniform(0.5, 2, small), np.clip(2 * x_power, -1022, 1000), np.float64)
    exact_var = bool(np.all(np.abs(2 * x_power) <= 1000))  # a float64 holds it
    if not train and not exact_var:
        return

    def run(xp: Any, ops: Any, to: Any, arrays: Any, gate_of: str | None) -> tuple[Any, ...]:
        x, dy, added, gamma, beta, mean, var = map(to, arrays)
        options: dict[str, Any] = {"residual": added if residual else None, "activation": gate_of}
        if train:
            y, moments, rstd, active = ops("batch_norm_train")(
                reference.TrainArguments(x, gamma, beta, None, None, decay=0.9, eps=0.0, correction=1, **options)
            )
            mean, count = moments.mean, moments.count
        else:
            y, active = ops("batch_norm_inference")(
                reference.InferenceArguments(x, gamma, beta, mean, var, eps=0.0, **options)
            )
            rstd, count = reference.reciprocal_std(xp, var, 0.0), None
        rest = (x, gamma, beta, mean, rstd)
        gate: dict[str, Any] = {"activation": gate_of, "active": active}
        grads = ops("batch_norm_backward")(
            reference.BackwardArguments(dy, *rest, train=train, count=count, residual=residual, **gate)
        )
        sums = ops("batch_norm_gradient_sums")(reference.GradientSumsArguments(dy, *rest, **gate))
        return y, grads.dx, grads.dgamma, grads.dbeta, *sums

    plain = [plain_x, plain_dy, plain_added, plain_gamma, plain_beta, plain_mean, plain_var]

    def oracle(activation: str | None) -> tuple[Any, ...]:
        def ops(name: str) -> Any:
            return lambda *args, **options: getattr(reference, name)(np, *args, **options)

        return run(np, ops, np.asarray, plain, activation)

    if activation is not None:  # no gradient arrives where rounding decides the gate
        kink = np.abs(oracle(None)[0]) < (1e-6 if dtype == np.float64 else 1e-3)
        dy, plain[1] = np.where(kink, 0, dy).astype(dtype), np.where(kink, 0, plain_dy)
    given = (x, dy, added, gamma, beta, mean, var)
    got = run(backend.xp, lambda name: getattr(backend, name), backend.asarray, given, activation)
    label = f"{dtype} {shape}, powers {tuple(powers)}, {activation}, residual {residual}, train {train}"
    results = (
        ("y", gamma_power, TOLERANCE[dtype.name]),
        ("dx", dy_power + gamma_power - x_power, 2 * TOLERANCE[dtype.name]),
        *((name, dy_power, sum_tolerance(dtype, shape[1] * shape[3])) for name in ("dgamma", "dbeta")),
        *((f"sum of {name}", dy_power, sum_tolerance(dtype, shape[1] * shape[3])) for name in ("dy", "dy * x_hat")),
    )
    for (name, power, tolerance), array, want in zip(results, got, oracle(activation), strict=True):
        values = backend.to_numpy(array).astype(np.float64)
        power = power[:, None] if values.ndim == 4 else power
        compare(f"{name} of {label}", backend, backend.asarray(np.ldexp(values, -power)), want, tolerance)
