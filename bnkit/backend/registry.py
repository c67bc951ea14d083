"""Which backend is used: the registry, and the choice by name, context, environment or array.

`bnkit.backend.base` says what a backend is.
"""

import contextlib
import contextvars
import copyreg
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bnkit.backend.base import Array as Array
from bnkit.backend.base import Backend as Backend
from bnkit.backend.base import BackendError as BackendError
from bnkit.backend.base import Key as Key
from bnkit.backend.base import dtype_name as dtype_name
from bnkit.backend.layout import Layout as Layout
from bnkit.backend.messages import type_name


class BackendInfo(NamedTuple):
    """A backend as `bnkit info` shows it; `details` is empty where it is not usable."""

    usable: bool
    reason: str  # why not, and the remedy
    details: dict[str, Any]


# Built-in backends by (package, class): a table and not entry points, so that a bare PYTHONPATH works.
_BUILT_IN = {"numpy": ("bnkit_numpy", "NumpyBackend"), "cupy": ("bnkit_cupy", "CupyBackend")}
_classes: dict[str, type[Backend]] = {}
_instances: dict[str, Backend] = {}
_by_array_type: dict[type, type[Backend]] = {}
known_backends: dict[type, Backend] = {}  # by the types that lie on one device alone, of arrays seen so far
_default: contextvars.ContextVar[Backend | None] = contextvars.ContextVar("bnkit_default_backend", default=None)
_auto_choice: list[str] = []


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend of this name; without one, that of `use_backend`, of `BNKIT_BACKEND`, or the automatic choice.

    name: "numpy", "cupy" (the current CUDA device), "cupy:1", "auto", a registered third-party name, or a Backend.
    Raises BackendError, with the cause and the remedy, where it cannot run.

        >>> bnkit.get_backend("numpy").name
        'numpy'
    """
    if isinstance(name, Backend):
        return name
    if name is None:
        chosen = _default.get()
        if chosen is not None:
            return chosen
        name = os.environ.get("BNKIT_BACKEND") or "auto"
    if not isinstance(name, str):
        raise TypeError(f"backend must be a name or a Backend, got {type(name).__name__}")
    if name == "auto":
        return _automatic()
    base, _, device = name.partition(":")
    key = _class(base).resolve(device or None)
    if key not in _instances:
        _instances.setdefault(key, _create(key))  # one, whichever thread was first
    return _instances[key]


@contextlib.contextmanager
def use_backend(name: str | Backend) -> Iterator[Backend]:
    """Make a backend the default within this context; a new thread starts without it.

    >>> with bnkit.use_backend("numpy") as backend:
    ...     model = bnkit.MLP((4, 8, 3))
    >>> model.backend is backend
    True
    """
    backend = get_backend(name)
    token = _default.set(backend)
    try:
        with backend.scope():
            yield backend
    finally:
        _default.reset(token)


def backend_of(*arrays: Array | None) -> Backend:
    """The one backend that owns all of these arrays, None aside; TypeError where they are not of one.

    >>> bnkit.backend_of(np.ones(3), None, np.zeros(2)).name
    'numpy'
    """
    found: Backend | None = None
    first: Array | None = None
    for array in arrays:
        if array is None:
            continue
        backend = known_backends.get(type(array)) or owner(array)
        if found is not None and backend is not found:
            raise TypeError(
                f"arrays must be of one backend, got {_kind(first, found)} and {_kind(array, backend)}; "
                f"move one by backend.asarray()"
            )
        found, first = backend, array
    if found is None:
        raise TypeError("backend_of needs at least one array")
    return found


def backends() -> dict[str, BackendInfo]:
    """Every known backend by name: usable, or why not.

    >>> bnkit.backends()["numpy"].usable
    True
    """
    result = {}
    for name in _names():
        try:
            result[name] = BackendInfo(True, "", get_backend(name).details())
        except Exception as error:  # one that fails must not hide the others
            result[name] = BackendInfo(False, str(error) or type(error).__name__, {})
    return result


def register(name: str, backend: type[Backend]) -> None:
    """Make a backend class known by `name` in this process, as an entry point in `bnkit.backends` does for good."""
    _classes[name] = _checked(name, backend)
    for key in [k for k in _instances if k.partition(":")[0] == name]:
        del _instances[key]
    _by_array_type.clear()
    known_backends.clear()


def _names() -> list[str]:
    return list(dict.fromkeys([*_BUILT_IN, *(point.name for point in _third_party()), *_classes]))


def _checked(name: str, backend: Any) -> type[Backend]:
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise TypeError(f"backend {name!r} must be a subclass of bnkit.backend.Backend, got {backend!r}")
    copyreg.pickle(backend, _by_key)
    return backend


def _by_key(backend: Backend) -> tuple[Callable[[str], Backend], tuple[str]]:
    """A pickled backend is its key, which `get_backend` looks up on the other side."""
    return get_backend, (backend.key,)


def _third_party() -> Any:
    from importlib import metadata  # slow to import, and few have third-party backends

    return metadata.entry_points(group="bnkit.backends")


def _class(name: str) -> type[Backend]:
    if name not in _classes:
        _classes[name] = _load(name)
    return _classes[name]


def _create(key: str) -> Backend:
    name, _, device = key.partition(":")
    try:
        return _class(name)(device or None)
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(
            f"backend {key!r} failed to start ({type(error).__name__}: {error})", remedy="choose another, or mend that"
        ) from error


def _load(name: str) -> type[Backend]:
    try:
        if name in _BUILT_IN:
            package, attribute = _BUILT_IN[name]
            return _checked(name, getattr(importlib.import_module(package), attribute))
        for point in _third_party():
            if point.name == name:
                return _checked(name, point.load())
    except Exception as error:  # a third party's package raises what it likes
        raise BackendError(
            f"backend {name!r} cannot be imported ({error})", remedy="reinstall the package that provides it"
        ) from error
    raise BackendError(f"no backend is named {name!r}", remedy=f"choose one of {', '.join(['auto', *_names()])}")


def _automatic() -> Backend:
    if not _auto_choice:
        try:
            get_backend("cupy")
            _auto_choice.append("cupy")
        except BackendError as error:
            if error.hardware:
                warnings.warn(f"bnkit uses the CPU although this machine has a GPU: {error}", stacklevel=3)
            _auto_choice.append("numpy")
    return get_backend(_auto_choice[0])


def owner(array: Array | None, name: str = "every array") -> Backend:
    """The backend of one array; where it has none, the TypeError calls the array `name`."""
    array_type = type(array)
    if (known := known_backends.get(array_type)) is not None:
        return known
    if array_type not in _by_array_type:
        _by_array_type[array_type] = _owning_class(array_type, name)
    found = _by_array_type[array_type]
    assert array is not None
    key = found.key_of(array)
    backend = _instances.get(key) or get_backend(key)
    if getattr(found.key_of, "__func__", None) is Backend.key_of.__func__:  # type: ignore[attr-defined]
        known_backends[array_type] = backend
    return backend


def _owning_class(array_type: type, name: str) -> type[Backend]:
    for backend in _names():
        if backend in _BUILT_IN and backend not in sys.modules:
            continue  # a library that was never imported has made no array
        with contextlib.suppress(BackendError):
            if _class(backend).owns(array_type):
                return _class(backend)
    raise TypeError(
        f"{name} must be an array of one of the backends ({', '.join(_names())}), got {type_name(array_type)}; "
        f"{_remedy(array_type)}"
    )


def _remedy(array_type: type) -> str:
    if issubclass(array_type, np.ma.MaskedArray):  # a conversion would drop its mask
        return (
            "pass a.data, and to batch_norm mask=~np.ma.getmaskarray(a), which is True where an element counts; "
            "or pass a.filled(value)"
        )
    if issubclass(array_type, (list, tuple, int, float, complex, np.generic)):
        return "convert it by numpy.asarray"
    if hasattr(array_type, "__array__") or hasattr(array_type, "__dlpack__"):
        return "convert it by bnkit.get_backend().asarray"
    return "pass an array"


def _kind(array: Array | None, backend: Backend) -> str:
    return f"{type(array).__module__.partition('.')[0]} on {backend.key}"
