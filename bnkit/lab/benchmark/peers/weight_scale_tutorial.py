"""The experiment as the tutorial writes it: NumPy, one network after the other, one class for each kind of layer."""

import functools
from typing import Any

import numpy as np

from bnkit.lab.benchmark.peers.batch_norm_tutorial import BatchNormalization, Relu
from bnkit.lab.benchmark.peers.weight_scale import Problem, Run


def prepare(work: Problem) -> dict[str, Run]:
    return {f"tutorial {dtype}": functools.partial(_run, work, dtype) for dtype in ("float64", "float32")}


@np.errstate(all="ignore")
def _run(work: Problem, dtype: str) -> np.ndarray:
    x, t = work.x.astype(dtype), work.t
    last = np.empty((2, len(work.settings.scales)))
    for i, scale in enumerate(work.settings.scales):
        networks = [_Network(work, scale, normalized, dtype) for normalized in (False, True)]
        for step, chosen in enumerate(work.batches):
            x_batch, t_batch = x[chosen], t[chosen]
            for network in networks:
                gradients = network.gradient(x_batch, t_batch)
                for key, p in network.params.items():
                    p -= work.settings.lr * gradients[key]
            if step % work.every == 0:
                last[:, i] = [network.accuracy(x, t) for network in networks]
    return last


class _Affine:
    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.W, self.b = weight, bias

    def forward(self, x: np.ndarray, train: bool) -> Any:
        self.x = x
        return np.dot(x, self.W) + self.b

    def backward(self, dout: np.ndarray) -> Any:
        self.dW, self.db = np.dot(self.x.T, dout), np.sum(dout, axis=0)
        return np.dot(dout, self.W.T)


class _SoftmaxWithLoss:
    def forward(self, x: np.ndarray, t: np.ndarray) -> Any:
        shifted = np.exp(x - np.max(x, axis=1, keepdims=True))
        self.t, self.y = t, shifted / np.sum(shifted, axis=1, keepdims=True)
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self) -> Any:
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class _Network:
    """The tutorial's MultiLayerNetExtend. As there, weight decay is computed although its factor is 0."""

    def __init__(self, work: Problem, scale: float, normalized: bool, dtype: str) -> None:
        self.decay = 0.0
        self.params: dict[str, np.ndarray] = {}
        self.layers: list[Any] = []
        self.affine: list[_Affine] = []
        self.norms: list[BatchNormalization] = []
        for i, normal in enumerate(work.normals, start=1):
            outputs = normal.shape[1]
            self.params[f"W{i}"] = (scale * normal).astype(dtype)
            self.params[f"b{i}"] = np.zeros(outputs, dtype)
            self.affine.append(_Affine(self.params[f"W{i}"], self.params[f"b{i}"]))
            self.layers.append(self.affine[-1])
            if i == len(work.normals):
                break
            if normalized:
                gamma, beta = np.ones(outputs, dtype), np.zeros(outputs, dtype)
                self.params[f"gamma{i}"], self.params[f"beta{i}"] = gamma, beta
                self.norms.append(BatchNormalization(gamma, beta, work.settings.decay, work.settings.eps))
                self.layers.append(self.norms[-1])
            self.layers.append(Relu())
        self.last = _SoftmaxWithLoss()

    def predict(self, x: np.ndarray, train: bool) -> Any:
        for layer in self.layers:
            x = layer.forward(x, train)
        return x

    def loss(self, x: np.ndarray, t: np.ndarray) -> Any:
        y = self.predict(x, train=True)
        penalty = sum(0.5 * self.decay * np.sum(layer.W**2) for layer in self.affine)
        return self.last.forward(y, t) + penalty

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        return float(np.mean(np.argmax(self.predict(x, train=False), axis=1) == t))

    def gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        self.loss(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        gradients: dict[str, np.ndarray] = {}
        for i, layer in enumerate(self.affine, start=1):
            gradients[f"W{i}"], gradients[f"b{i}"] = layer.dW + self.decay * layer.W, layer.db
        for i, norm in enumerate(self.norms, start=1):
            gradients[f"gamma{i}"], gradients[f"beta{i}"] = norm.dgamma, norm.dbeta
        return gradients
