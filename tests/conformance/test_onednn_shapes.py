"""The shapes over which oneDNN's benchdnn checks its batch norm, and the two that it keeps for cancellation.

Source: oneDNN, tests/benchdnn/inputs/bnorm: shapes_resnet_50, bnorm_googlenet_v3 and test_bnorm_regressions, each shape
once. DenseNet-121, which it checks too, is not copied from it but made of Huang et al. 2017, table 1, at 224×224.
The batch is 2, which benchdnn's `--mb` sets as well.
"""

from typing import Any

import numpy as np
import pytest

import bnkit

BATCH = 2
RESNET_50 = [
    (64, 112), (256, 56), (64, 56), (512, 28), (128, 28), (1024, 14), (256, 14), (2048, 7), (512, 7)
]  # fmt: skip
GOOGLENET_V3 = [
    (32, 149), (32, 147), (64, 147), (80, 73), (192, 71), (64, 35), (48, 35), (96, 35), (32, 35), (384, 17), (96, 17),
    (192, 17), (128, 17), (160, 17), (320, 8), (192, 8), (384, 8), (448, 8)
]  # fmt: skip
# before each layer of a block the channels so far, 32 more each time, inside of it 128, after the block all of them
DENSENET_121 = [(64, 112)] + [
    (channels, size)
    for size, first, layers in ((56, 64, 6), (28, 128, 12), (14, 256, 24), (7, 512, 16))
    for channels in sorted({128, *range(first, first + 32 * layers + 1, 32)})
]
SHAPES = sorted({*RESNET_50, *GOOGLENET_V3, *DENSENET_121})
CANCELLATION = [(128, 2), (1024, 2)]  # mb2ic128ih2 mb2ic1024ih2, "catastrophic cancellation"

Host = np.ndarray[Any, Any]


def drawn(channels: int, size: int, *, mean: float, nhwc: bool) -> dict[str, Host]:
    rng = np.random.default_rng((channels, size))
    arrays = {}
    for name, shift in (("x", mean), ("dy", 0.1)):
        a = rng.standard_normal((BATCH, size, size, channels), np.float32) + np.float32(shift)
        arrays[name] = a if nhwc else np.ascontiguousarray(a.transpose(0, 3, 1, 2))
    for name in ("gamma", "beta", "mean", "var"):
        arrays[name] = rng.uniform(0.5, 2, channels).astype(np.float32)
    return arrays


def expected(a: dict[str, Host], *, train: bool, axis: int, eps: float) -> dict[str, Host]:
    """Every result in float64, the derivative through mean and variance spelt out."""
    a = {name: array.astype(np.float64) for name, array in a.items()}
    x, dy = (np.moveaxis(a[name], axis, -1) for name in ("x", "dy"))
    over = (0, 1, 2)
    n = x.size // x.shape[-1]
    mean, var = (x.mean(over), x.var(over)) if train else (a["mean"], a["var"])
    x_hat = (x - mean) / np.sqrt(var + eps)
    dgamma, dbeta = (dy * x_hat).sum(over), dy.sum(over)
    dx = dy - (dbeta + x_hat * dgamma) / n if train else dy
    y, dx = x_hat * a["gamma"] + a["beta"], dx * a["gamma"] / np.sqrt(var + eps)
    results = {"y": np.moveaxis(y, -1, axis), "dx": np.moveaxis(dx, -1, axis), "dgamma": dgamma, "dbeta": dbeta}
    moved = {"mean": 0.9 * a["mean"] + 0.1 * mean, "var": 0.9 * a["var"] + 0.1 * var * n / (n - 1)}
    return results | (moved if train else {"mean": mean, "var": var})


def check(channels: int, size: int, *, mean: float, nhwc: bool, train: bool) -> None:
    a, axis = drawn(channels, size, mean=mean, nhwc=nhwc), -1 if nhwc else 1
    want = expected(a, train=train, axis=axis, eps=1e-5)
    y, cache = bnkit.batch_norm(a["x"], a["gamma"], a["beta"], a["mean"], a["var"], train=train, axis=axis)
    got = bnkit.batch_norm_backward(a["dy"], cache)._asdict() | {"y": y, "mean": a["mean"], "var": a["var"]}
    for name, value in want.items():
        # 2e-6 of the largest is the promise for float32; the statistics are float64, rounded once
        tolerance = 2e-7 if name in ("mean", "var") else 2e-6
        assert got[name].dtype == np.float32
        error = np.abs(got[name] - value).max() / max(1, np.abs(value).max())
        assert error <= tolerance, f"{name}: {error}"


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_training_and_its_gradients_are_float64s(channels: int, size: int, nhwc: bool) -> None:
    check(channels, size, mean=1.0, nhwc=nhwc, train=True)


@pytest.mark.parametrize(("channels", "size"), RESNET_50)
def test_inference_and_its_gradients_are_float64s(channels: int, size: int) -> None:
    check(channels, size, mean=1.0, nhwc=True, train=False)  # benchdnn's FWD_I with --tag=nhwc


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("mean", [1e2, 1e4])
@pytest.mark.parametrize(("channels", "size"), CANCELLATION)
def test_eight_values_far_from_0_lose_nothing_to_cancellation(
    channels: int, size: int, mean: float, nhwc: bool
) -> None:
    check(channels, size, mean=mean, nhwc=nhwc, train=True)
