"""Results beyond the last-level cache, which the kernels write past it in whole cache lines: every start of a row."""

import numpy as np
import pytest

import bnkit
from bnkit_numpy import compiled_kernels

pytestmark = pytest.mark.skipif(compiled_kernels() is None, reason="installed without the compiled kernels")

SHAPES = {
    "NCHW": ((16, 64, 56, 56), 1),
    "NHWC": ((16, 56, 56, 64), -1),
    "NCHW, odd rows": ((16, 48, 63, 62), 1),
    "NCHW, short runs": ((40, 300, 14, 14), 1),
    "NCHW, short runs of few channels": ((1200, 44, 7, 7), 1),
    "NHWC, three channels": ((50, 127, 127, 3), -1),
    "NHWC, a last row that is shorter": ((101, 153, 55, 3), -1),
}


def at_offset(elements, shape, dtype):
    """An array that starts so many elements after a cache line does."""
    size = int(np.prod(shape))
    memory = np.empty(size + 64, dtype)
    start = -memory.ctypes.data % 64 // memory.itemsize + elements
    return memory[start : start + size].reshape(shape)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("dtype", "offset"), [("float32", 0), ("float32", 4), ("float32", 12), ("float64", 6)])
def test_a_gradient_passes_where_the_relu_let_through_wherever_the_result_starts(name, dtype, offset):
    shape, axis = SHAPES[name]
    generator = np.random.default_rng(0)
    x, residual, dy = (generator.standard_normal(shape, dtype) for _ in range(3))
    out, dx = at_offset(offset, shape, dtype), at_offset(offset, shape, dtype)
    y, cache = bnkit.batch_norm(
        x, None, None, train=True, axis=axis, residual=residual, activation="relu", out=out, eps=1e-5
    )
    grads = bnkit.batch_norm_backward(dy, cache, out=dx)
    assert np.array_equal(grads.dresidual, np.where(y > 0, dy, 0))
    reduced = tuple(a for a in range(4) if a != axis % 4)
    wide = x.astype(np.float64)
    x_hat = (wide - wide.mean(reduced, keepdims=True)) / np.sqrt(wide.var(reduced, keepdims=True) + 1e-5)
    tolerance = 2e-6 if dtype == "float32" else 1e-12  # the values are below 10
    np.testing.assert_allclose(y, np.maximum(x_hat + residual, 0), rtol=tolerance, atol=tolerance)
    passed = np.where(y > 0, dy, 0).astype(np.float64)
    dx_hat = passed - passed.mean(reduced, keepdims=True) - x_hat * (passed * x_hat).mean(reduced, keepdims=True)
    expected = dx_hat / np.sqrt(wide.var(reduced, keepdims=True) + 1e-5)
    np.testing.assert_allclose(grads.dx, expected, rtol=tolerance, atol=tolerance)
