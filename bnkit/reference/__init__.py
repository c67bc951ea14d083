"""What every op means, in plain array-API code: tests measure against it, and a backend falls back to it.

An op takes one record of arguments, whose fields are its signature everywhere: here, in the backends, in the checks of
third-party backends and in the benchmark.
"""

from bnkit.reference.array import Array, quiet
from bnkit.reference.batch_norm import (
    BatchNormTrain,
    InferenceArguments,
    TrainArguments,
    batch_norm_inference,
    batch_norm_train,
)
from bnkit.reference.batch_norm_backward import (
    BackwardArguments,
    BatchNormBackward,
    GradientSumsArguments,
    batch_norm_backward,
    batch_norm_gradient_sums,
)
from bnkit.reference.bits import pack_bits, unpack_bits
from bnkit.reference.moments import (
    Moments,
    MomentsArguments,
    batch_norm_moments,
    move,
    move_running,
    reciprocal_std,
    variance,
)
from bnkit.reference.network import matmul, softmax_cross_entropy
from bnkit.reference.optimizer import StepArguments, optimizer_step
from bnkit.reference.random import uniform

__all__ = [
    "Array",
    "BackwardArguments",
    "BatchNormBackward",
    "BatchNormTrain",
    "GradientSumsArguments",
    "InferenceArguments",
    "Moments",
    "MomentsArguments",
    "StepArguments",
    "TrainArguments",
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
