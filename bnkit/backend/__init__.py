"""Who computes an op: the `Backend` base class, the registry that chooses one, and the 4-D view that ops take."""

from bnkit.backend.base import Array, Backend, BackendError, Key, dtype_name
from bnkit.backend.layout import Layout
from bnkit.backend.registry import (
    BackendInfo,
    backend_of,
    backends,
    get_backend,
    known_backends,
    owner,
    register,
    use_backend,
)

__all__ = [
    "Array",
    "Backend",
    "BackendError",
    "BackendInfo",
    "Key",
    "Layout",
    "backend_of",
    "backends",
    "dtype_name",
    "get_backend",
    "known_backends",
    "owner",
    "register",
    "use_backend",
]
