"""The API of section 6.3 of "Deep Learning from Scratch", with its names and numbers, on NumPy arrays only.

A script of that section runs after a change of its import lines. The API differs from the rest of bnkit:

- Batch norm: `momentum` weighs the old running value, eps is 10e-7 = 1e-6, and the running variance is the biased one.
  Running mean and variance start at 0 at the first forward in either mode, and are new arrays after each step.
  `backward` differentiates the last training forward, but with the gamma at the time of `backward`.
  Images (N, C, H, W) are N rows of C*H*W activations, each with its statistics, gamma and beta.
- Loss: the mean of -log(softmax + 1e-7), plus half the weight decay times the squares of every W. The gradient is
  (softmax - t) / N, which ignores the 1e-7.
- `gradient` and `numerical_gradient` train: each loss moves the running arrays and draws dropout masks.
- Weights and dropout masks come from NumPy's global generator, which np.random.seed sets.
- Dropout keeps an element if rand > ratio, without scaling, and multiplies by 1 - ratio in inference.
- Optimizers add 1e-7 outside the root, and Nesterov's parameters are the look-ahead point.
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from bnkit.backend.checks import check_int, check_real
from bnkit.data import load_mnist_raw
from bnkit.testing.gradients import numerical_gradient as central_differences
from bnkit.tutorial.layers import (
    Affine,
    BatchNormalization,
    Dropout,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
    labels_of,
    quiet,
    rows_of,
)
from bnkit.tutorial.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "BatchNormalization", "Momentum", "MultiLayerNetExtend", "Nesterov", "RMSprop"]
__all__ += ["load_mnist"]

Array = npt.NDArray[Any]


class MultiLayerNetExtend:
    """A network of Affine, BatchNorm, activation and Dropout for each hidden size, and a last Affine.

    activation: "relu" or "sigmoid". weight_init_std: the standard deviation of the weights; "relu" or "he" is
    sqrt(2 / inputs), "sigmoid" or "xavier" is sqrt(1 / inputs). The layers use the arrays of `params`.

        >>> network = bnkit.tutorial.MultiLayerNetExtend(4, [5], 3, use_batchnorm=True)
        >>> sorted(network.gradient(np.ones((2, 4)), np.array([0, 2])))
        ['W1', 'W2', 'b1', 'b2', 'beta1', 'gamma1']
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

    @quiet
    def predict(self, x: npt.ArrayLike, train_flg: bool = False) -> Array:
        """Return the scores (N, output_size) before softmax."""
        for key, layer in self.layers.items():
            x = layer.forward(x, train_flg) if key.startswith(("BatchNorm", "Dropout")) else layer.forward(x)
        return np.asarray(x)

    @quiet
    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike, train_flg: bool = False) -> float:
        labels_of(t, len(rows_of(x, self.input_size)), self.output_size)
        squares = sum(float(np.sum(self.params[f"W{k}"] ** 2)) for k in range(1, self.hidden_layer_num + 2))
        return self.last_layer.forward(self.predict(x, train_flg), t) + 0.5 * self.weight_decay_lambda * squares

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        labels = labels_of(t, len(rows_of(x, self.input_size)), self.output_size)
        return float(np.mean(self.predict(x).argmax(axis=1) == labels))

    def numerical_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Return the same as `gradient`, from central differences of the training loss."""

        def loss() -> float:
            return self.loss(x, t, train_flg=True)

        return {key: central_differences(loss, param, h=1e-4) for key, param in self.params.items()}

    @quiet
    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Return the gradients of the training loss, with weight decay, by the names of `params`."""
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

    Images are (N, 784) or (N, 1, 28, 28), float32 in [0, 1] or uint8. Labels are uint8 (N,), or one-hot float64
    (N, 10). The files and errors are as in `bnkit.data.load_mnist_raw`.
    """
    x_train, t_train, x_test, t_test = load_mnist_raw()

    def images(raw: Array) -> Array:
        x = raw.reshape((len(raw), 784) if flatten else (len(raw), 1, 28, 28))
        return x.astype(np.float32) / 255 if normalize else x

    def labels(t: Array) -> Array:
        return np.eye(10)[t] if one_hot_label else t

    return (images(x_train), labels(t_train)), (images(x_test), labels(t_test))


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


def __dir__() -> list[str]:
    return list(__all__)
