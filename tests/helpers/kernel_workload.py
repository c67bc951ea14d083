"""Every op of the NumPy backend on drawn data, for tests that ask for the same bits elsewhere or at another time."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from kernel_memory import start_child, told_by

import bnkit
from bnkit.reference import (
    BackwardArguments,
    GradientSumsArguments,
    InferenceArguments,
    MomentsArguments,
    TrainArguments,
)

Array = np.ndarray[Any, Any]
DTYPES = tuple(np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64"))
# Of one piece and of many: small, blocks of columns, tall and single columns, groups, runs, short runs in blocks and
# in parts, long runs, one long run.
SHAPES = (
    (1, 7, 5, 1),
    (1, 100, 333, 1),
    (1, 2000, 67, 1),
    (1, 40_003, 1, 1),
    (3, 40, 370, 1),
    (2, 9, 31, 150),
    (1, 20, 64, 49),
    (2, 700, 5, 49),
    (1, 2, 2, 70_001),
    (1, 1, 1, 150_001),
)


def all_results(shape: tuple[int, ...], dtype: Any) -> dict[str, Array]:
    """What each op returns and writes, by name."""
    backend, rng = bnkit.get_backend("numpy"), np.random.default_rng(shape)
    x, dy, residual = (rng.normal(m, 1.5, shape).astype(dtype) for m in (0.5, 0.2, 0.0))
    stored = "float64" if np.dtype(dtype) == np.float64 else "float32"
    small = (shape[0], shape[2])
    gamma, beta, mean, var = (rng.uniform(low, 2, small).astype(stored) for low in (-2, -1, -1, 0.5))
    found: dict[str, Array] = {}

    def keep(name: str, *arrays: Array | None) -> None:
        found.update({f"{name} {i}": np.asarray(a) for i, a in enumerate(arrays) if a is not None})

    keep("moments", *backend.batch_norm_moments(MomentsArguments(x)))
    for activation in (None, "relu"):
        for added in (None, residual):
            name = f"{activation}, {'no' if added is None else 'a'} residual:"
            running = [mean.copy(), var.copy()]
            ending: dict[str, Any] = {"activation": activation, "residual": added}
            made = backend.batch_norm_train(TrainArguments(x, gamma, beta, *running, 0.9, 1e-5, 1, **ending))
            keep(f"{name} train", made.y, *made.moments, made.rstd, made.active, *running)
            inference = InferenceArguments(x, gamma, beta, mean, var, 1e-5, **ending)
            keep(f"{name} inference", *backend.batch_norm_inference(inference))
            given = (dy, x, gamma, beta, made.moments.mean, made.rstd)
            gate: dict[str, Any] = {"activation": activation, "active": made.active}
            sums = backend.batch_norm_gradient_sums(GradientSumsArguments(*given, **gate))
            keep(f"{name} sums", *sums)
            args = BackwardArguments(*given, True, made.moments.count, residual=added is not None, **gate)
            keep(f"{name} backward", *backend.batch_norm_backward(args))
            keep(f"{name} backward by sums", *backend.batch_norm_backward(args._replace(sums=sums)))
    logits = x.reshape(shape[0], -1, shape[2]) if shape[3] == 1 else x[0, 0]
    labels = rng.integers(0, logits.shape[-1], logits.shape[:-1])
    keep("loss of labels", *backend.softmax_cross_entropy(logits, labels))
    weights = rng.random(logits.shape[-2:]).astype(stored)
    keep("loss of weights", *backend.softmax_cross_entropy(logits, weights))
    if np.dtype(dtype).name in ("float32", "float64"):  # a product that leaves out zeros, of several tasks
        sparse = (rng.normal(size=(300, 120)) * (rng.random((300, 120)) < 0.2)).astype(dtype)
        for name, a in (("rows", sparse), ("columns", np.asfortranarray(sparse))):
            keep(f"product by {name}", backend.matmul(a, rng.normal(size=(shape[0], 120, 100)).astype(dtype)))
    return found


def checksums(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> dict[str, int]:
    """One number for each result over these shapes and all dtypes."""
    return {
        f"{dtype.name} {shape} {name}": zlib.crc32(np.ascontiguousarray(a).tobytes())
        for shape in shapes
        for dtype in DTYPES
        for name, a in all_results(shape, dtype).items()
    }


def child_checksums(*environments: Mapping[str, str]) -> list[dict[str, int]]:
    """`checksums()` of new processes, one for each environment, two at a time."""
    code = "import json, kernel_workload; print(json.dumps(kernel_workload.checksums()))"
    found = []
    for start in range(0, len(environments), 2):
        children = [start_child(code, **environment) for environment in environments[start : start + 2]]
        found += [json.loads(told_by(child)) for child in children]
    return found
