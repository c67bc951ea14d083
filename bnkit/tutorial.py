"""Section 6.3 of "Deep Learning from Scratch" over bnkit: its names and its numbers, on NumPy arrays alone.

A script of that section runs with nothing but its import lines changed. Where it differs from bnkit:

- Batch norm: `momentum` weighs the old running value; eps is 10e-7, that is 1e-6; the running variance is the biased
  one. Running mean and variance start at 0, at the first forward in either mode, and are new arrays after each step.
  `backward` belongs to the last training forward, but takes the gamma of its own time.
  Images (N, C, H, W) are N rows of C*H*W activations, each with its own statistics, gamma and beta.
- Loss: the mean of -log(softmax + 1e-7), plus half the weight decay times the squares of every W. The gradient is
  (softmax - t) / N, which leaves out the 1e-7.
- `gradient` and `numerical_gradient` train: each loss they compute moves the running arrays, draws dropout masks.
- Weights and dropout masks come from NumPy's global generator: np.random.seed decides them.
- Dropout keeps the element where rand > ratio, unscaled, and multiplies by 1 - ratio at inference.
- Optimizers add 1e-7 outside the root, and Nesterov's parameters are the look-ahead point.
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .batch_norm import batch_norm, batch_norm_backward
from .checks import check_int, check_real
from .data import load_mnist_raw
from .gradcheck import numerical_gradient as central_differences
from .tutorial_optim import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "BatchNormalization", "Momentum", "MultiLayerNetExtend", "Nesterov", "RMSprop"]
__all__ += ["load_mnist"]

Array = npt.NDArray[Any]

# Networks diverge at large initial scales; the experiment shows that, NumPy need not report each overflow.
_quiet = np.errstate(over="ignore", invalid="ignore")


class BatchNormalization:
    """Batch normalization of (N, D) or (N, C, H, W); gamma, beta and the running arrays are (D,) or (C*H*W,).

    Computed in float64; results have the dtype that NumPy gives to arithmetic among the arguments.
    """

    def __init__(
        self, gamma: Any, beta: Any, momentum: float = 0.9, running_mean: Any = None, running_var: Any = None
    ) -> None:
        if (running_mean is None) != (running_var is None):
            absent = "running_mean" if running_mean is None else "running_var"
            raise ValueError(f"running_mean and running_var must be given both or neither, got None for {absent}")
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.input_shape: tuple[int, ...] | None = None
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None
        self._trained: tuple[Any, tuple[int, ...], np.dtype[Any]] | None = None

    @_quiet
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
        # A copy, because the cache refers to it and scripts write into x before `backward`.
        rows = np.array(x, np.float64, order="C").reshape(len(x), features)
        # gamma 1 and beta 0: the cache would keep this gamma, `backward` takes the one of its own time.
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

    @_quiet
    def backward(self, dout: npt.ArrayLike) -> Array:
        """Return dx and set `dgamma` and `dbeta`, for the last forward with train_flg=True."""
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
    """x @ W + b over x flattened to (N, inputs); W and b are used, and kept, as the arrays they are."""

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: npt.ArrayLike) -> Array:
        self.shape, self.x = np.shape(x), _rows(x, len(self.W))
        return np.asarray(self.x @ self.W + self.b)

    def backward(self, dout: Array) -> Array:
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return np.asarray(dout @ self.W.T).reshape(self.shape)


class Relu:
    """max(x, 0); NaN stays."""

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        return np.where(self.mask, 0, dout)


class Sigmoid:
    """1 / (1 + exp(-x)); where exp overflows to inf, that is the right 0."""

    def forward(self, x: Array) -> Array:
        self.out = 1 / (1 + np.exp(-x))
        return np.asarray(self.out)

    def backward(self, dout: Array) -> Array:
        return np.asarray(dout * (1 - self.out) * self.out)


class Dropout:
    """x * (rand > ratio) in training, x * (1 - ratio) at inference."""

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
        labels = _labels(t, *x.shape)
        exp = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = exp / exp.sum(axis=1, keepdims=True)
        self.t = np.eye(x.shape[1])[labels] if np.ndim(t) == 1 else np.asarray(t)
        self.loss = float(-np.log(self.y[np.arange(len(x)), labels] + 1e-7).mean())
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        return np.asarray((self.y - self.t) / len(self.y) * dout)


class MultiLayerNetExtend:
    """A network of Affine, BatchNorm, activation and Dropout for each hidden size, and a last Affine.

    activation: "relu" or "sigmoid". weight_init_std: "relu" or "he" for sqrt(2 / inputs), "sigmoid" or "xavier" for
    sqrt(1 / inputs), or a number, times randn. `params` holds the very arrays that the layers use.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Iterable[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        activations: dict[str, type[Relu] | type[Sigmoid]] = {"relu": Relu, "sigmoid": Sigmoid}
        if str(activation).lower() not in activations:
            raise ValueError(f"activation must be 'relu' or 'sigmoid', got {activation!r}")
        if not isinstance(hidden_size_list, Iterable):
            raise TypeError(f"hidden_size_list must be a sequence of ints, got {hidden_size_list!r}")
        check_real("weight_decay_lambda", weight_decay_lambda)
        check_real("dropout_ration", dropout_ration)
        if not 0 <= dropout_ration <= 1:
            raise ValueError(f"dropout_ration must lie in [0, 1], got {dropout_ration}")
        self.input_size, self.hidden_size_list, self.output_size = input_size, list(hidden_size_list), output_size
        sizes = [input_size, *self.hidden_size_list, output_size]
        for k, size in enumerate(sizes):
            check_int("input_size" if k == 0 else "output_size" if k == len(sizes) - 1 else "hidden_size_list", size)
        self.hidden_layer_num, self.weight_decay_lambda = len(self.hidden_size_list), weight_decay_lambda
        self.use_dropout, self.use_batchnorm = use_dropout, use_batchnorm
        self.params: dict[str, Array] = {}
        self.layers: OrderedDict[str, Any] = OrderedDict()
        self.last_layer = SoftmaxWithLoss()
        for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
            W = self.params[f"W{k}"] = _initial_scale(weight_init_std, inputs) * np.random.randn(inputs, outputs)
            b = self.params[f"b{k}"] = np.zeros(outputs)
            self.layers[f"Affine{k}"] = Affine(W, b)
            if k > self.hidden_layer_num:
                break
            if use_batchnorm:
                gamma, beta = self.params[f"gamma{k}"], self.params[f"beta{k}"] = np.ones(outputs), np.zeros(outputs)
                self.layers[f"BatchNorm{k}"] = BatchNormalization(gamma, beta)
            self.layers[f"Activation_function{k}"] = activations[str(activation).lower()]()
            if use_dropout:
                self.layers[f"Dropout{k}"] = Dropout(dropout_ration)

    @_quiet
    def predict(self, x: npt.ArrayLike, train_flg: bool = False) -> Array:
        """Return the scores (N, output_size), before softmax."""
        for key, layer in self.layers.items():
            x = layer.forward(x, train_flg) if key.startswith(("BatchNorm", "Dropout")) else layer.forward(x)
        return np.asarray(x)

    @_quiet
    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike, train_flg: bool = False) -> float:
        _labels(t, len(_rows(x, self.input_size)), self.output_size)
        squares = sum(float(np.sum(self.params[f"W{k}"] ** 2)) for k in range(1, self.hidden_layer_num + 2))
        return self.last_layer.forward(self.predict(x, train_flg), t) + 0.5 * self.weight_decay_lambda * squares

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        labels = _labels(t, len(_rows(x, self.input_size)), self.output_size)
        return float(np.mean(self.predict(x).argmax(axis=1) == labels))

    def numerical_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Return what `gradient` returns, from central differences of the training loss."""

        def loss() -> float:
            return self.loss(x, t, train_flg=True)

        return {key: central_differences(loss, param, h=1e-4) for key, param in self.params.items()}

    @_quiet
    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Return the gradient of the training loss, weight decay included, under the keys of `params`."""
        self.loss(x, t, train_flg=True)
        dout = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads: dict[str, Array] = {}
        for k in range(1, self.hidden_layer_num + 2):
            affine = self.layers[f"Affine{k}"]
            grads[f"W{k}"], grads[f"b{k}"] = affine.dW + self.weight_decay_lambda * affine.W, affine.db
            if f"BatchNorm{k}" in self.layers:
                norm = self.layers[f"BatchNorm{k}"]
                grads[f"gamma{k}"], grads[f"beta{k}"] = norm.dgamma, norm.dbeta
        return grads


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return MNIST as (x_train, t_train), (x_test, t_test).

    Images (N, 784) or (N, 1, 28, 28): float32 in [0, 1], or uint8. Labels uint8 (N,), or one-hot float64 (N, 10).
    The files and the errors are those of `bnkit.data.load_mnist_raw`.
    """
    x_train, t_train, x_test, t_test = load_mnist_raw()

    def images(raw: Array) -> Array:
        x = raw.reshape((len(raw), 784) if flatten else (len(raw), 1, 28, 28))
        return x.astype(np.float32) / 255 if normalize else x

    def labels(t: Array) -> Array:
        return np.eye(10)[t] if one_hot_label else t

    return (images(x_train), labels(t_train)), (images(x_test), labels(t_test))


def _numeric(name: str, value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array


def _rows(x: npt.ArrayLike, width: int) -> Array:
    x = _numeric("x", x)
    if x.ndim < 2 or math.prod(x.shape[1:]) != width:
        raise ValueError(f"x must be (N, {width}) or images of as many values, got {x.shape}")
    return np.reshape(x, (len(x), width))


def _each(name: str, value: npt.ArrayLike, features: int) -> Array:
    array = _numeric(name, value)
    if array.shape not in ((), (1,), (features,), (1, features)):
        raise ValueError(f"{name} must be ({features},), one for each activation, got {array.shape}")
    return np.asarray(np.broadcast_to(array, (1, features))[0])


def _labels(t: npt.ArrayLike, rows: int, classes: int) -> Array:
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


def _initial_scale(weight_init_std: str | float, inputs: int) -> float:
    if not isinstance(weight_init_std, str):
        check_real("weight_init_std", weight_init_std)
        return weight_init_std
    gains = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}
    if weight_init_std.lower() not in gains:
        raise ValueError(
            f"weight_init_std must be one of {', '.join(map(repr, gains))} or a number, got {weight_init_std!r}"
        )
    return math.sqrt(gains[weight_init_std.lower()] / inputs)
