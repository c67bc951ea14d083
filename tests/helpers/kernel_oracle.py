"""Batch norm and the loss as their formulas, over whole arrays in np.longdouble, and what rounding may cost a kernel.

Nothing here imports the package under test. Every result is a `Near`: the value, and how far a kernel's may be from it.
"""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

UNIT64 = 2.0**-53
UNITS = {"float64": UNIT64, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# What may become 0: exponentials need not reach below the smallest normal number; to float16 they are rounded.
TINY = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-24, "bfloat16": 2.0**-126}


class Near(NamedTuple):
    value: Array
    error: Array


class Forward(NamedTuple):
    y: Near
    running_mean: Near | None
    running_var: Near | None
    before: Near  # the ReLU, where there is one
    x_hat: Array
    size: Array  # of x_hat: its terms without their signs
    rstd: Array
    count: int


class Gradients(NamedTuple):
    dx: Near
    dgamma: Near
    dbeta: Near
    dresidual: Array


def wide(a: Any) -> Array:
    return np.asarray(a).astype(np.longdouble)


def unit(dtype: Any) -> float:
    """The rounding of what a kernel computes in: float32, and float64 for float64."""
    return UNIT64 if np.dtype(dtype).name == "float64" else UNITS["float32"]


def rounding(dtype: Any, count: int = 1) -> float:
    """What the way of an element through a kernel costs, relative to the terms of its formula.

    16 roundings, of its distance from the shift, of products and sums, and of sums over runs so short that they cost no
    more: for float32 at one deviation from the mean the 2e-6 that are promised. A sum of `count` terms in float64 is
    one long run, whose roundings walk at random.
    """
    u = unit(dtype)
    return (16 + (count**0.5 if u == UNIT64 else 0)) * u


def near(value: Array, size: Array, dtype: Any, lost: float) -> Near:
    """`value` stored as `dtype` after `lost` of terms as large as `size`."""
    name = np.dtype(dtype).name
    return Near(value, lost * size + UNITS[name] * np.abs(value) + TINY[name])


def assert_near(got: Any, want: Near, label: str) -> None:
    got = wide(got)
    assert got.shape == want.value.shape, f"{label}: shape {got.shape}, expected {want.value.shape}"
    wrong = ~(np.abs(got - want.value) <= want.error)  # so that NaN is wrong
    if wrong.any():
        i = tuple(int(a[0]) for a in np.nonzero(wrong))
        raise AssertionError(
            f"{label}: {wrong.sum()} of {wrong.size} wrong, the first at {i}: {got[i]} and not {want.value[i]}, "
            f"allowed {float(np.broadcast_to(want.error, wrong.shape)[i]):.3g}"
        )


def forward(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    *,
    axes: tuple[int, ...],
    train: bool,
    decay: float = 0.9,
    eps: float = 1e-5,
    correction: int = 1,
    residual: Array | None = None,
    activation: str | None = None,
) -> Forward:
    """`axes`: those of the parameters, sorted and counted from the front."""
    dtype, u = x.dtype, unit(x.dtype)
    over = tuple(a for a in range(x.ndim) if a not in axes)
    g, b, old_mean, old_var = (
        default if a is None else np.expand_dims(wide(a), over)
        for a, default in ((gamma, 1.0), (beta, 0.0), (running_mean, 0.0), (running_var, 1.0))
    )
    x = wide(x)
    count = int(np.prod([x.shape[a] for a in over]))
    n, lost = max(count, 1), rounding(dtype, count)
    mean, var = old_mean, old_var
    if train:
        mean = x.sum(axis=over, keepdims=True) / n
        var = ((x - mean) ** 2).sum(axis=over, keepdims=True) / n
    rstd = 1 / np.sqrt(var + eps)
    x_hat = (x - mean) * rstd
    size = 1 + np.abs(x_hat) + UNIT64 / u * np.abs(mean) * rstd  # the mean is known to float64
    added = 0 if residual is None else wide(residual)
    before = near(g * x_hat + b + added, np.abs(g) * size + np.abs(b) + np.abs(added), dtype, lost)
    y = before if activation is None else Near(np.maximum(before.value, 0), before.error)
    moved_mean = moved_var = None
    if running_mean is not None and running_var is not None:
        stored, shape = running_mean.dtype, running_mean.shape
        keep, new = (1.0, 0.0) if not train or count == 0 else (decay, 1 - decay)
        unbiased = var * (n / max(n - correction, 1))
        mean_size = abs(keep) * np.abs(old_mean) + abs(new) * (np.abs(mean) + np.sqrt(var))
        var_size = abs(keep) * old_var + abs(new) * (unbiased + (UNIT64 * mean) ** 2 / u)
        moved_mean = near((keep * old_mean + new * mean).reshape(shape), mean_size.reshape(shape), stored, lost)
        moved_var = near((keep * old_var + new * unbiased).reshape(shape), var_size.reshape(shape), stored, lost)
    return Forward(y, moved_mean, moved_var, before, x_hat, size, rstd, count)


def away_from_the_kink(dy: Array, made: Forward, activation: str | None) -> Array:
    """dy, but 0 where rounding decides whether a ReLU lets through."""
    if activation is None:
        return dy
    return np.where(np.abs(made.before.value) <= 4 * made.before.error, np.zeros_like(dy), dy)


def backward(
    dy: Array, made: Forward, gamma: Array | None, *, axes: tuple[int, ...], train: bool, activation: str | None = None
) -> Gradients:
    dtype, lost = dy.dtype, rounding(dy.dtype, made.count)
    over = tuple(a for a in range(dy.ndim) if a not in axes)
    g = 1.0 if gamma is None else np.expand_dims(wide(gamma), over)
    upstream = wide(dy)
    if activation is not None:
        upstream = np.where(made.before.value > 0, upstream, 0)
    n = max(made.count, 1)
    x_hat, rstd, x_size = made.x_hat, made.rstd, made.size

    def total(a: Array) -> Array:
        return a.sum(axis=over, keepdims=True)

    dbeta, dgamma = total(upstream), total(upstream * x_hat)
    dbeta_size, dgamma_size = total(np.abs(upstream)), total(np.abs(upstream) * x_size)
    dx, dx_size = upstream, np.abs(upstream)
    if train:
        dx = upstream - dbeta / n - x_hat * dgamma / n
        dx_size = dx_size + dbeta_size / n + x_size * dgamma_size / n
    parameters = np.dtype("float64" if dtype == np.float64 else "float32")
    shape = tuple(dy.shape[a] for a in axes)
    return Gradients(
        near(dx * g * rstd, dx_size * np.abs(g) * rstd, dtype, lost),
        near(dgamma.reshape(shape), dgamma_size.reshape(shape), parameters, lost),
        near(dbeta.reshape(shape), dbeta_size.reshape(shape), parameters, lost),
        upstream,
    )


def softmax_cross_entropy(logits: Array, weights: Array) -> tuple[Near, Near]:
    """The mean over rows of -Σ weights · log softmax, and its gradient; weights: broadcast to the logits' shape."""
    z, t = wide(logits), np.broadcast_to(wide(weights), logits.shape)
    rows, lost = z.shape[-2], rounding(logits.dtype, z[0].size)
    shifted = z - z.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=-1, keepdims=True)
    p = powers / total
    with np.errstate(invalid="ignore"):  # 0 times -inf, which counts as 0
        terms = np.where(t == 0, 0, t * (shifted - np.log(total)))
    # An exponential of s is off by s roundings.
    depth = np.where(p == 0, 0, np.where(np.isfinite(shifted), np.abs(shifted), 0)) + np.log(total) + 1
    loss_size = np.where(t == 0, 0, np.abs(t) * depth).sum(axis=(-2, -1)) / rows
    mass = np.abs(t).sum(axis=-1, keepdims=True)
    gradient_size = (p * depth * mass + np.abs(t)) / rows
    return (
        near(-terms.sum(axis=(-2, -1)) / rows, loss_size, np.float64, lost),
        near((p * t.sum(axis=-1, keepdims=True) - t) / rows, gradient_size, logits.dtype, lost),
    )
