"""Arrays of other libraries on the same CUDA device, taken without a copy: torch's, JAX's, numba's.

By DLPack where an array has it, whose consumer tells the producer its stream: CuPy passes its current one. Else by the
CUDA array interface, whose stream CuPy waits for.
"""

from typing import Any

import numpy as np

from bnkit.backend import Array, BackendError

# DLDeviceType of dlpack.h
_HOST = (1, 3)  # plain and pinned
_CUDA = (2, 13)  # plain and managed


def device_array(cupy: Any, a: Any, device: int) -> Array | None:
    """`a` as an array of CuPy's if it lies on a CUDA device, and None if on the host.

    Raises BackendError where it lies on another device than `device`, which has to be current.
    """
    if isinstance(a, cupy.ndarray):
        return _on(device, a, a.device.id)
    if hasattr(a, "__dlpack__") and hasattr(a, "__dlpack_device__"):
        kind, number = (int(i) for i in a.__dlpack_device__())
        if kind in _HOST:
            return None
        if kind not in _CUDA:
            raise BackendError(
                f"the array lies on a device of DLPack's type {kind}, which is no CUDA device",
                remedy="move it to the host by its own library",
            )
        return cupy.from_dlpack(_on(device, a, number))
    if hasattr(a, "__cuda_array_interface__"):
        found = cupy.asarray(a)
        return _on(device, found, found.device.id)
    return None


def host_array(a: Any) -> Any:
    """`a` as CuPy copies it: arrays of other libraries on the host as NumPy's of the same memory."""
    if not hasattr(a, "__dlpack__"):
        return a
    protocols = ("__array__", "__array_interface__", "__buffer__")
    return np.asarray(a) if any(hasattr(a, name) for name in protocols) else np.from_dlpack(a)


def _on(device: int, a: Any, number: int) -> Any:
    if number != device:
        raise BackendError(
            f"the array lies on CUDA device {number}, and backend 'cupy:{device}' works on device {device}",
            remedy=f"move it by its own library, or use backend 'cupy:{number}'",
        )
    return a
