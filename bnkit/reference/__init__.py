"""What every op means, in plain array-API code: tests measure against it, and a backend falls back to it."""

from bnkit.reference.batch_norm import (
    BatchNormBackward,
    BatchNormTrain,
    Moments,
    batch_norm_backward,
    batch_norm_gradient_sums,
    batch_norm_inference,
    batch_norm_moments,
    batch_norm_train,
    move,
    move_running,
    quiet,
    reciprocal_std,
    variance,
)
from bnkit.reference.bits import pack_bits, unpack_bits
from bnkit.reference.network import matmul, softmax_cross_entropy
from bnkit.reference.optimizer import optimizer_step
from bnkit.reference.random import uniform

__all__ = [
    "BatchNormBackward",
    "BatchNormTrain",
    "Moments",
    "batch_norm_backward",
    "batch_norm_gradient_sums",
    "batch_norm_inference",
    "batch_norm_moments",
    "batch_norm_train",
    "matmul",
    "move",
    "move_running",
    "optimizer_step",
    "pack_bits",
    "quiet",
    "reciprocal_std",
    "softmax_cross_entropy",
    "uniform",
    "unpack_bits",
    "variance",
]
