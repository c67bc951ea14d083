"""Batch normalization as a textbook writes it: one channel at a time, every derivative spelt out, in np.longdouble.

Nothing here is fast, and nothing imports the package under test.
Source: Ioffe & Szegedy 2015, algorithm 1 and the six equations of section 3.
"""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Number = Any  # a longdouble


class Forward(NamedTuple):
    y: Array
    running_mean: Array | None
    running_var: Array | None


class Gradients(NamedTuple):
    dx: Array
    dgamma: Array
    dbeta: Array
    dresidual: Array


def wide(a: Any) -> Array:
    return np.asarray(a).astype(np.longdouble)


def channels(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> list[tuple[Any, ...]]:
    """For each channel (and replica), what indexes its elements; a channel is one index of the parameters."""
    axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    found = []
    for index in np.ndindex(*(shape[a] for a in axes)):
        where: list[Any] = [slice(None)] * len(shape)
        for a, i in zip(axes, index, strict=True):
            where[a] = i
        found.append((index, tuple(where)))
    return found


def batches(entries: int, ghost: int | None) -> list[slice]:
    """The batch axis in runs of `ghost`, and what remains; one run without it."""
    if ghost is None or entries <= ghost:
        return [slice(None)]
    return [slice(start, min(start + ghost, entries)) for start in range(0, entries, ghost)]


def batch_axis(ndim: int, axis: int | tuple[int, ...]) -> int:
    kept = {a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    return min(set(range(ndim)) - kept)


def pieces(x: Array, axis: int | tuple[int, ...], ghost: int | None) -> list[tuple[Any, list[tuple[Any, ...]]]]:
    """For each channel its index, and what selects the elements of each of its ghost batches."""
    along = batch_axis(x.ndim, axis)
    result = []
    for index, where in channels(x.shape, axis):
        runs = []
        for run in batches(x.shape[along], ghost):
            selection = list(where)
            selection[along] = run
            runs.append(tuple(selection))
        result.append((index, runs))
    return result


def mean_and_variance(values: Array) -> tuple[Number, Number]:
    """Of the elements that count, the biased variance."""
    mean = values.sum() / values.size
    return mean, ((values - mean) ** 2).sum() / values.size


def parameter(a: Any, index: Any, default: float) -> Number:
    return np.longdouble(default) if a is None else wide(a)[index]


def forward(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    train: bool = True,
    axis: int | tuple[int, ...] = 1,
    decay: float = 0.9,
    eps: float = 1e-5,
    correction: int = 1,
    mask: Any = None,
    residual: Any = None,
    activation: str | None = None,
    ghost: int | None = None,
) -> Forward:
    x = wide(x)
    y = np.empty_like(x)
    counts = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    new_mean = None if running_mean is None else wide(running_mean).copy()
    new_var = None if running_var is None else wide(running_var).copy()
    for index, runs in pieces(x, axis, ghost if train else None):
        g, b = parameter(gamma, index, 1), parameter(beta, index, 0)
        means, variances = [], []
        for run in runs:
            if not train:
                y[run] = g * (x[run] - wide(running_mean)[index]) / np.sqrt(wide(running_var)[index] + eps) + b
                continue
            values = x[run][counts[run]]
            if values.size == 0:
                y[run] = b
                continue
            mean, variance = mean_and_variance(values)
            y[run] = g * (x[run] - mean) / np.sqrt(variance + eps) + b
            means.append(mean)
            if values.size > correction:
                variances.append(variance * values.size / (values.size - correction))
        if train and new_mean is not None and new_var is not None:
            if means:
                new_mean[index] = decay * new_mean[index] + (1 - decay) * sum(means) / len(means)
            if variances:
                new_var[index] = decay * new_var[index] + (1 - decay) * sum(variances) / len(variances)
    if residual is not None:
        y = y + wide(residual)
    if activation == "relu":
        y = np.where(y > 0, y, np.where(np.isnan(y), y, 0))
    return Forward(y, new_mean, new_var)


def backward(
    dy: Any,
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    train: bool = True,
    axis: int | tuple[int, ...] = 1,
    eps: float = 1e-5,
    mask: Any = None,
    residual: Any = None,
    activation: str | None = None,
    ghost: int | None = None,
    **_: Any,
) -> Gradients:
    """The chain rule through dx_hat, dvar and dmean, as the paper has it."""
    dy, x = wide(dy), wide(x)
    if activation == "relu":
        options: dict[str, Any] = {"mask": mask, "residual": residual, "ghost": ghost}
        before = forward(x, gamma, beta, running_mean, running_var, train=train, axis=axis, eps=eps, **options).y
        dy = dy * (before > 0)
    dx = np.zeros_like(x)
    counts = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    runs_of = pieces(x, axis, ghost if train else None)
    shape = tuple(x.shape[a] for a in sorted(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))))
    dgamma, dbeta = np.zeros(shape, np.longdouble), np.zeros(shape, np.longdouble)
    for index, runs in runs_of:
        g = parameter(gamma, index, 1)
        for run in runs:
            dbeta[index] += dy[run].sum()
            if not train:
                scale = 1 / np.sqrt(wide(running_var)[index] + eps)
                dx[run] = dy[run] * g * scale
                dgamma[index] += (dy[run] * (x[run] - wide(running_mean)[index]) * scale).sum()
                continue
            counted = counts[run]
            n = counted.sum()
            if n == 0:  # y is beta whatever x
                continue
            mean, variance = mean_and_variance(x[run][counted])
            std = np.sqrt(variance + eps)
            distance = x[run] - mean
            dx_hat = dy[run] * g
            dvar = (dx_hat * distance).sum() * np.longdouble(-0.5) * std**-3
            # Σ distance over the counted elements is 0, so the paper's second term of dmean vanishes
            dmean = -dx_hat.sum() / std
            dx[run] = dx_hat / std + np.where(counted, dvar * 2 * distance / n + dmean / n, 0)
            dgamma[index] += (dy[run] * distance / std).sum()
    return Gradients(dx, dgamma, dbeta, dy)
