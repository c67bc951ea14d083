"""Arrays of PyTorch and JAX that enter by `asarray`: NumPy's backend without a copy, CuPy's from the host.

Their CUDA arrays need a GPU (tests/backends/cuda/test_on_cupy.py); these lie on the host.
"""

from typing import Any

import fake_cupy
import numpy as np
import pytest
from cuda_host.host_backend import needs_compiler

import bnkit

DTYPES = ["float16", "float32", "float64", "int64", "bool"]
of_both = pytest.mark.parametrize("library", ["torch", "jax"])


def made_by(library: str, host: np.ndarray[Any, Any]) -> Any:
    """An array of the library with these values."""
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    if library == "torch":
        return module.tensor(host)
    with module.enable_x64():
        return module.device_put(host, module.devices("cpu")[0])


def address(a: Any) -> int:
    return int(a.data_ptr() if hasattr(a, "data_ptr") else a.unsafe_buffer_pointer())


@of_both
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_enters_numpys_backend_without_a_copy(library: str, dtype: str) -> None:
    host = np.arange(12).reshape(3, 4).astype(dtype)
    given = made_by(library, host)
    entered = bnkit.get_backend("numpy").asarray(given)
    assert entered.ctypes.data == address(given)
    assert entered.dtype == dtype
    np.testing.assert_array_equal(entered, host)


@of_both
def test_a_wanted_dtype_is_made(library: str) -> None:
    given = made_by(library, np.arange(3, dtype=np.float32))
    entered = bnkit.get_backend("numpy").asarray(given, dtype="float64")
    assert entered.dtype == np.float64
    np.testing.assert_array_equal(entered, [0, 1, 2])


def test_the_strides_of_a_tensor_are_kept() -> None:
    given = made_by("torch", np.arange(24.0).reshape(2, 3, 4)).permute(2, 0, 1)
    entered = bnkit.get_backend("numpy").asarray(given)
    assert entered.strides == tuple(8 * s for s in given.stride())
    assert entered.ctypes.data == given.data_ptr()


def test_running_arrays_of_torch_are_moved_in_its_memory() -> None:
    x = np.random.default_rng(0).normal(3, 2, (64, 5)).astype(np.float32)
    want = [np.zeros(5, np.float32), np.ones(5, np.float32)]
    tensors = [made_by("torch", a) for a in (x, *want)]
    entered = [bnkit.get_backend("numpy").asarray(t) for t in tensors]
    y, _ = bnkit.batch_norm(entered[0], None, None, *entered[1:], train=True)
    expected, _ = bnkit.batch_norm(x, None, None, *want, train=True)
    np.testing.assert_array_equal(y, expected)
    for tensor, array in zip(tensors[1:], want, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_an_array_of_jax_is_not_written() -> None:
    mean, var = (bnkit.get_backend("numpy").asarray(made_by("jax", np.ones(5, np.float32))) for _ in range(2))
    x = np.ones((4, 5), np.float32)
    with pytest.raises(ValueError, match="running_mean"):
        bnkit.batch_norm(x, None, None, mean, var, train=True)


def test_a_tensor_that_asks_for_gradients_is_refused_by_torch() -> None:
    given = made_by("torch", np.ones(3, np.float32)).requires_grad_()
    for backend in (bnkit.get_backend("numpy"), fake_cupy.backend()):
        with pytest.raises(RuntimeError, match=r"use tensor\.detach\(\)|Use tensor\.detach\(\)"):
            backend.asarray(given)


@of_both
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_on_the_host_is_moved_to_cupys_device(library: str, dtype: str) -> None:
    """As one of NumPy: only what lies on another CUDA device is refused."""
    host = np.arange(12).reshape(3, 4).astype(dtype)
    cupy = fake_cupy.backend()
    entered = cupy.asarray(made_by(library, host))
    assert cupy.xp.calls == ["asarray"]
    assert entered.source.dtype == dtype
    np.testing.assert_array_equal(entered.source, host)


@needs_compiler
@of_both
def test_an_array_on_the_host_goes_through_the_kernels(library: str) -> None:
    x = np.random.default_rng(0).normal(3, 2, (64, 12)).astype(np.float32)
    host = bnkit.get_backend("cuda_host")
    y, _ = bnkit.batch_norm(host.asarray(made_by(library, x)), None, None, train=True)
    expected, _ = bnkit.batch_norm(x, None, None, train=True)
    np.testing.assert_allclose(host.to_numpy(y), expected, rtol=1e-5, atol=1e-6)  # a few roundings of float32
