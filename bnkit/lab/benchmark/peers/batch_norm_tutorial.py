"""The batch norm of section 6.3 of "Deep Learning from Scratch", rewritten, in arrays of one dtype.

The tutorial's class keeps separate statistics for each activation of an image. Here an image batch is reshaped to
(rows, channels), as a user does who wants statistics for each channel, and replicas run in a loop.
"""

from typing import Any

import numpy as np

from bnkit.lab.benchmark.measure import OPS, Case
from bnkit.lab.benchmark.peers.batch_norm import Calls

Array = Any


class BatchNormalization:
    def __init__(self, gamma: Array, beta: Array, momentum: float = 0.9, eps: float = 10e-7) -> None:
        self.gamma = gamma
        self.beta = beta
        self.momentum = momentum
        self.eps = eps
        self.running_mean = np.zeros_like(gamma)
        self.running_var = np.zeros_like(gamma)

    def forward(self, x: Array, train_flg: bool) -> Array:
        if train_flg:
            mu = x.mean(axis=0)
            xc = x - mu
            var = np.mean(xc**2, axis=0)
            std = np.sqrt(var + self.eps)
            xn = xc / std
            self.batch_size = x.shape[0]
            self.xc = xc
            self.xn = xn
            self.std = std
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mu
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        else:
            xc = x - self.running_mean
            xn = xc / np.sqrt(self.running_var + self.eps)
        return self.gamma * xn + self.beta

    def backward(self, dout: Array) -> Array:
        self.dbeta = dout.sum(axis=0)
        self.dgamma = np.sum(self.xn * dout, axis=0)
        dxn = self.gamma * dout
        dxc = dxn / self.std
        dstd = -np.sum((dxn * self.xc) / (self.std * self.std), axis=0)
        dvar = 0.5 * dstd / self.std
        dxc += (2.0 / self.batch_size) * self.xc * dvar
        dmu = np.sum(dxc, axis=0)
        return dxc - dmu / self.batch_size


class Relu:
    def forward(self, x: Array, train_flg: bool) -> Array:
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout: Array) -> Array:
        dout[self.mask] = 0
        return dout


def calls(case: Case, name: str, dtype: str) -> Calls:
    if dtype not in ("float32", "float64"):
        raise TypeError(f"dtype must be float32 or float64, got {dtype}: the tutorial's sums need that precision")
    op = OPS[name]
    generator = np.random.default_rng(0)
    x, dy, residual = (generator.standard_normal(case.shape).astype(dtype) for _ in range(3))
    replicas = case.shape[0] if case.layout == "replicas" else 1
    channels = case.shape[case.axis] if isinstance(case.axis, int) else case.shape[2]
    layers = [BatchNormalization(np.ones(channels, dtype), np.zeros(channels, dtype)) for _ in range(replicas)]
    relu = Relu()

    def forward(train_flg: bool) -> Array:
        y = _back(case, [layer.forward(rows, train_flg) for layer, rows in zip(layers, _rows(case, x), strict=True)])
        if op.residual:
            y = y + residual
        return relu.forward(y, train_flg) if op.relu else y

    def backward() -> Array:
        dout = relu.backward(dy.copy()) if op.relu else dy  # Relu overwrites its argument
        return _back(case, [layer.backward(rows) for layer, rows in zip(layers, _rows(case, dout), strict=True)])

    forward(True)
    if op.kind == "backward":
        return {"BatchNormalization": backward}
    return {"BatchNormalization": lambda: forward(op.kind == "train")}


def _rows(case: Case, x: Array) -> list[Array]:
    """x as arrays of shape (rows, channels), one for each layer."""
    if case.layout == "replicas":
        return list(x)
    if case.layout == "NCHW":
        x = x.transpose(0, 2, 3, 1)
    return [x.reshape(-1, x.shape[-1])]


def _back(case: Case, rows: list[Array]) -> Array:
    if case.layout == "replicas":
        return np.stack(rows)
    if case.layout == "NCHW":
        n, c, h, w = case.shape
        return rows[0].reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return rows[0].reshape(case.shape)
