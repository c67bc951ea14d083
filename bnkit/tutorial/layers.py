"""The tutorial's layers, which store the inputs of their backward. `bnkit.tutorial` lists the differences."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from bnkit.backend import get_backend
from bnkit.backend.checks import check_real
from bnkit.norm.batch_norm import batch_norm, batch_norm_backward

Array = npt.NDArray[Any]

# The experiment shows networks that diverge; NumPy need not warn of each overflow.
quiet = np.errstate(over="ignore", invalid="ignore")


class BatchNormalization:
    """Batch normalization of (N, D) or (N, C, H, W); gamma, beta and the running arrays are (D,) or (C*H*W,).

    The computation is in float64. Results have the dtype of NumPy's arithmetic with the arguments.

        >>> norm = bnkit.tutorial.BatchNormalization(np.ones(2), np.zeros(2))
        >>> norm.forward(np.array([[1.0, 2.0], [3.0, 6.0]])).round(3)
        array([[-1., -1.],
               [ 1.,  1.]])
    """

    def __init__(
        self, gamma: Any, beta: Any, momentum: float = 0.9, running_mean: Any = None, running_var: Any = None
    ) -> None:
        if (running_mean is None) != (running_var is None):
            absent = "running_mean" if running_mean is None else "running_var"
            raise ValueError(f"running_mean and running_var must come both or neither, got None for {absent}")
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.input_shape: tuple[int, ...] | None = None
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None
        self._trained: tuple[Any, tuple[int, ...], np.dtype[Any]] | None = None

    @quiet
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Array:
        x = _numeric("x", x)
        if x.ndim not in (2, 4):
            raise ValueError(f"x must be (N, D) or (N, C, H, W), got {x.shape}")
        features = math.prod(x.shape[1:])
        gamma, beta = _each("gamma", self.gamma, features), _each("beta", self.beta, features)
        if self.running_mean is None:
            self.running_mean, self.running_var = np.zeros(features), np.zeros(features)
        old = _each("running_mean", self.running_mean, features), _each("running_var", self.running_var, features)
        running_mean, running_var = (np.array(a, np.float64) for a in old)
        # A copy: the cache refers to it, and scripts write into x before `backward`.
        rows = np.array(x, np.float64, order="C").reshape(len(x), features)
        # gamma 1 and beta 0: `backward` must use the gamma of its time, not the one in the cache.
        check_real("momentum", self.momentum)
        settings: dict[str, Any] = {"train": bool(train_flg), "decay": self.momentum, "eps": 10e-7, "correction": 0}
        y, cache = batch_norm(rows, np.ones(features), np.zeros(features), running_mean, running_var, **settings)
        dtype_of_x = np.result_type(x, 0.0)
        dtype = np.result_type(dtype_of_x, gamma, beta)
        self.input_shape = x.shape
        if train_flg:
            self.running_mean = running_mean.astype(np.result_type(dtype_of_x, old[0]), copy=False)
            self.running_var = running_var.astype(np.result_type(dtype_of_x, old[1]), copy=False)
            self._trained = cache, x.shape, dtype
        else:
            dtype = np.result_type(dtype, *old)
        out: Array = (gamma * y + beta).astype(dtype, copy=False).reshape(x.shape)
        return out

    @quiet
    def backward(self, dout: npt.ArrayLike) -> Array:
        """Return dx and set `dgamma` and `dbeta` for the last forward with train_flg=True."""
        if self._trained is None:
            raise ValueError("backward must come after forward(x, train_flg=True), got no such forward")
        cache, shape, dtype = self._trained
        dout = _numeric("dout", dout)
        rows = (shape[0], math.prod(shape[1:]))
        if dout.shape not in (shape, rows):
            raise ValueError(f"dout must be {shape}, as x in the last training forward, got {dout.shape}")
        gamma = _each("gamma", self.gamma, rows[1])
        grads = batch_norm_backward(np.asarray(dout, np.float64).reshape(rows), cache)
        dtype = np.result_type(dtype, dout)
        # dx is linear in dout, so gamma may come last.
        dx, self.dgamma, self.dbeta = (
            np.asarray(grad, dtype) for grad in (gamma * grads.dx, grads.dgamma, grads.dbeta)
        )
        return dx.reshape(shape)


class Affine:
    """x @ W + b for x flattened to (N, inputs). W and b are not copied."""

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: npt.ArrayLike) -> Array:
        self.shape, self.x = np.shape(x), rows_of(x, len(self.W))
        return np.asarray(get_backend("numpy").matmul(self.x, self.W) + self.b)

    def backward(self, dout: Array) -> Array:
        self.dW, self.db = np.asarray(get_backend("numpy").matmul(self.x.T, dout)), dout.sum(axis=0)
        return np.asarray(dout @ self.W.T).reshape(self.shape)


class Relu:
    """max(x, 0); NaN stays NaN."""

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        return np.where(self.mask, 0, dout)


class Sigmoid:
    """1 / (1 + exp(-x)), which is correctly 0 if exp overflows."""

    def forward(self, x: Array) -> Array:
        self.out = 1 / (1 + np.exp(-x))
        return np.asarray(self.out)

    def backward(self, dout: Array) -> Array:
        return np.asarray(dout * (1 - self.out) * self.out)


class Dropout:
    """x * (rand > ratio) in training, x * (1 - ratio) in inference."""

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout: Array) -> Array:
        return dout * self.mask


class SoftmaxWithLoss:
    """The mean of -log(softmax(x) + 1e-7) at the labels t: integers (N,), or one-hot (N, K)."""

    def forward(self, x: Array, t: npt.ArrayLike) -> float:
        labels = labels_of(t, *x.shape)
        exp = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = exp / exp.sum(axis=1, keepdims=True)
        self.t = np.eye(x.shape[1])[labels] if np.ndim(t) == 1 else np.asarray(t)
        self.loss = float(-np.log(self.y[np.arange(len(x)), labels] + 1e-7).mean())
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        return np.asarray((self.y - self.t) / len(self.y) * dout)


def rows_of(x: npt.ArrayLike, width: int) -> Array:
    x = _numeric("x", x)
    if x.ndim < 2 or math.prod(x.shape[1:]) != width:
        raise ValueError(f"x must be (N, {width}) or images of as many values, got {x.shape}")
    return np.reshape(x, (len(x), width))


def labels_of(t: npt.ArrayLike, rows: int, classes: int) -> Array:
    t = _numeric("t", t)
    if t.shape == (rows, classes):
        return np.asarray(t.argmax(axis=1))
    if t.shape != (rows,):
        raise ValueError(f"t must be labels ({rows},) or one-hot ({rows}, {classes}), got {t.shape}")
    if t.dtype.kind not in "iu":
        raise TypeError(f"t must hold integer labels, got {t.dtype}")
    if rows and not 0 <= t.min() <= t.max() < classes:
        raise ValueError(f"t must hold labels from 0 to {classes - 1}, got {t.min()} to {t.max()}")
    return t


def _numeric(name: str, value: npt.ArrayLike) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array of real numbers, got values that numpy.asarray refuses ({error})"
        ) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array


def _each(name: str, value: npt.ArrayLike, features: int) -> Array:
    array = _numeric(name, value)
    if array.shape not in ((), (1,), (features,), (1, features)):
        raise ValueError(f"{name} must be ({features},), one for each activation, got {array.shape}")
    return np.asarray(np.broadcast_to(array, (1, features))[0])
