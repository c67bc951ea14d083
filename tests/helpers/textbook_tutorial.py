"""The tutorial's classes from their definitions, in plain NumPy: the oracle of test_tutorial_*.py.

Nothing here imports bnkit. Every step is written as its formula, with no thought for speed.
"""

import gzip
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np

EPS = 10e-7


class BatchNormalization:
    def __init__(self, gamma, beta, momentum=0.9, running_mean=None, running_var=None):
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.input_shape = self.dgamma = self.dbeta = None

    def forward(self, x, train_flg=True):
        self.input_shape = x.shape
        rows = x.reshape(len(x), -1)
        if self.running_mean is None:
            self.running_mean, self.running_var = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        mean, var = self.running_mean, self.running_var
        if train_flg:
            mean, var = rows.mean(0), ((rows - rows.mean(0)) ** 2).mean(0)
            new = 1 - self.momentum
            self.running_mean = self.momentum * self.running_mean + new * mean
            self.running_var = self.momentum * self.running_var + new * var
            self.std, self.xn = np.sqrt(var + EPS), (rows - mean) / np.sqrt(var + EPS)
        return (self.gamma * ((rows - mean) / np.sqrt(var + EPS)) + self.beta).reshape(x.shape)

    def backward(self, dout):
        g = dout.reshape(len(dout), -1)
        self.dbeta, self.dgamma = g.sum(0), (g * self.xn).sum(0)
        dx = self.gamma / self.std * (g - g.mean(0) - self.xn * (g * self.xn).mean(0))
        return dx.reshape(dout.shape)


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x, train_flg):
        self.x = x.reshape(len(x), -1)
        return np.dot(self.x, self.W) + self.b

    def backward(self, dout):
        self.dW, self.db = np.dot(self.x.T, dout), dout.sum(0)
        return np.dot(dout, self.W.T)


class Pointwise:
    """ReLU: value and gradient pass but where x <= 0, so NaN does. Sigmoid: 1 / (1 + exp(-x)), slope y (1 - y)."""

    def __init__(self, name):
        self.name = name

    def forward(self, x, train_flg):
        if self.name == "relu":
            self.off = x <= 0
            return np.where(self.off, 0, x)
        self.y = 1 / (1 + np.exp(-x))
        return self.y

    def backward(self, dout):
        return np.where(self.off, 0, dout) if self.name == "relu" else dout * self.y * (1 - self.y)


class Dropout:
    def __init__(self, ratio):
        self.ratio = ratio

    def forward(self, x, train_flg):
        if not train_flg:
            return (1 - self.ratio) * x
        self.kept = np.random.rand(*x.shape) > self.ratio
        return x * self.kept

    def backward(self, dout):
        return dout * self.kept


class MultiLayerNetExtend:
    def __init__(
        self,
        input_size,
        hidden_size_list,
        output_size,
        activation="relu",
        weight_init_std="relu",
        weight_decay_lambda=0,
        use_dropout=False,
        dropout_ration=0.5,
        use_batchnorm=False,
    ):
        self.decay, self.params, self.layers = weight_decay_lambda, {}, OrderedDict()
        sizes = [input_size, *hidden_size_list, output_size]
        self.last = len(hidden_size_list) + 1
        power = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}.get(str(weight_init_std).lower())
        for k in range(1, self.last + 1):
            scale = weight_init_std if power is None else np.sqrt(power / sizes[k - 1])
            W = self.params[f"W{k}"] = scale * np.random.randn(sizes[k - 1], sizes[k])
            b = self.params[f"b{k}"] = np.zeros(sizes[k])
            self.layers[f"Affine{k}"] = Affine(W, b)
            if k == self.last:
                break
            if use_batchnorm:
                gamma = self.params[f"gamma{k}"] = np.ones(sizes[k])
                beta = self.params[f"beta{k}"] = np.zeros(sizes[k])
                self.layers[f"BatchNorm{k}"] = BatchNormalization(gamma, beta)
            self.layers[f"Activation_function{k}"] = Pointwise(activation.lower())
            if use_dropout:
                self.layers[f"Dropout{k}"] = Dropout(dropout_ration)

    def predict(self, x, train_flg=False):
        for layer in self.layers.values():
            x = layer.forward(x, train_flg)
        return x

    def _softmax_and_targets(self, x, t, train_flg):
        scores = self.predict(x, train_flg)
        e = np.exp(scores - scores.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        return p, (t if t.ndim == 2 else np.eye(p.shape[1])[t])

    def _loss(self, p, targets):
        fit = -np.log(p[np.arange(len(p)), targets.argmax(1)] + 1e-7).mean()
        return fit + sum(self.decay / 2 * (self.params[f"W{k}"] ** 2).sum() for k in range(1, self.last + 1))

    def loss(self, x, t, train_flg=False):
        return self._loss(*self._softmax_and_targets(x, t, train_flg))

    def accuracy(self, x, t):
        return np.mean(self.predict(x).argmax(1) == (t if t.ndim == 1 else t.argmax(1)))

    def gradient(self, x, t):
        p, targets = self._softmax_and_targets(x, t, True)
        dout, grads = (p - targets) / len(p), {}
        for name, layer in reversed(self.layers.items()):
            dout = layer.backward(dout)
            if name.startswith("Affine"):
                k = name.removeprefix("Affine")
                grads[f"W{k}"], grads[f"b{k}"] = layer.dW + self.decay * layer.W, layer.db
            elif name.startswith("BatchNorm"):
                k = name.removeprefix("BatchNorm")
                grads[f"gamma{k}"], grads[f"beta{k}"] = layer.dgamma, layer.dbeta
        return grads

    def numerical_gradient(self, x, t, h=1e-4):
        grads = {}
        for name, p in self.params.items():
            grads[name] = np.zeros_like(p)
            for i in np.ndindex(p.shape):
                old, losses = p[i], []
                for moved in (old + h, old - h):
                    p[i] = moved
                    losses.append(self.loss(x, t, True))
                p[i] = old
                grads[name][i] = (losses[0] - losses[1]) / (2 * h)
        return grads


class Optimizer:
    """One step for each parameter, in place: step(slots, g) returns what is added; slots start at zero."""

    def __init__(self, lr=0.01):
        self.lr, self.slots, self.t = lr, {}, 0

    def update(self, params, grads):
        self.t += 1
        for name in params:
            slots = self.slots.setdefault(name, {"a": 0.0, "b": 0.0})
            params[name] += self.step(slots, grads[name])


class SGD(Optimizer):
    def step(self, s, g):
        return -self.lr * g


class Momentum(Optimizer):
    def __init__(self, lr=0.01, momentum=0.9):
        super().__init__(lr)
        self.momentum = momentum

    def step(self, s, g):
        s["a"] = self.momentum * s["a"] - self.lr * g
        return s["a"]


class Nesterov(Momentum):
    def step(self, s, g):
        m, old = self.momentum, s["a"]
        s["a"] = m * old - self.lr * g
        return m**2 * old - (1 + m) * self.lr * g


class AdaGrad(Optimizer):
    def step(self, s, g):
        s["a"] = s["a"] + g**2
        return -self.lr * g / (np.sqrt(s["a"]) + 1e-7)


class RMSprop(Optimizer):
    def __init__(self, lr=0.01, decay_rate=0.99):
        super().__init__(lr)
        self.decay_rate = decay_rate

    def step(self, s, g):
        s["a"] = self.decay_rate * s["a"] + (1 - self.decay_rate) * g**2
        return -self.lr * g / (np.sqrt(s["a"]) + 1e-7)


class Adam(Optimizer):
    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999):
        super().__init__(lr)
        self.beta1, self.beta2 = beta1, beta2

    def step(self, s, g):
        s["a"] = self.beta1 * s["a"] + (1 - self.beta1) * g
        s["b"] = self.beta2 * s["b"] + (1 - self.beta2) * g**2
        lr = self.lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        return -lr * s["a"] / (np.sqrt(s["b"]) + 1e-7)


def load_mnist(normalize=True, flatten=True, one_hot_label=False):
    def read(name, header):
        file = Path(os.environ["BNKIT_DATA_DIR"]) / "mnist" / f"{name}-ubyte.gz"
        return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)

    def part(prefix):
        x, t = read(f"{prefix}-images-idx3", 16), read(f"{prefix}-labels-idx1", 8)
        x = x.reshape((-1, 784) if flatten else (-1, 1, 28, 28))
        return (x.astype(np.float32) / np.float32(255) if normalize else x), (np.eye(10)[t] if one_hot_label else t)

    return part("train"), part("t10k")
