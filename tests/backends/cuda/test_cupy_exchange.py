"""Arrays of other libraries that enter the CuPy backend, over fakes of theirs and of CuPy."""

from typing import Any

import numpy as np
import pytest
from fake_cupy import CupyArray, backend

import bnkit

CPU, CUDA, PINNED, ROCM, MANAGED = 1, 2, 3, 10, 13


class Exported:
    """An array of another library, with DLPack alone."""

    def __init__(self, kind: int, number: int = 0) -> None:
        self.kind, self.number = kind, number
        self.streams: list[Any] = []
        self.host = np.arange(3.0)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.number

    def __dlpack__(self, **options: Any) -> Any:
        if self.kind in (CPU, PINNED):
            return self.host.__dlpack__(**options)
        self.streams.append(options["stream"])
        return self


class Interface:
    """As numba's device arrays: the CUDA array interface alone."""

    def __init__(self, lies_on: int) -> None:
        self.lies_on = lies_on
        self.__cuda_array_interface__ = {"shape": (3,), "typestr": "<f4", "data": (0, False), "version": 3}


@pytest.mark.parametrize("kind", [CUDA, MANAGED])
@pytest.mark.parametrize("device", [0, 1])
def test_an_array_with_dlpack_enters_without_a_copy_and_in_the_order_of_the_current_stream(
    kind: int, device: int
) -> None:
    cupy, given = backend(device), Exported(kind, device)
    found = cupy.asarray(given)
    assert found.source is given
    assert given.streams == [100 * device]
    assert found.device.id == device


def test_an_array_with_the_cuda_array_interface_enters_without_a_copy() -> None:
    cupy, given = backend(), Interface(0)
    assert cupy.asarray(given).source is given
    assert "from_dlpack" not in cupy.xp.calls


def test_an_array_of_cupy_is_returned_as_it_is() -> None:
    given = CupyArray(None, 0)
    assert backend().asarray(given) is given


@pytest.mark.parametrize("given", [Exported(CUDA, 1), Interface(1), CupyArray(None, 1)], ids=lambda a: type(a).__name__)
def test_an_array_on_another_device_is_refused_and_not_moved(given: Any) -> None:
    with pytest.raises(bnkit.BackendError, match=r"lies on CUDA device 1.*device 0.*'cupy:1'"):
        backend().asarray(given)
    assert getattr(given, "streams", []) == []


def test_an_array_on_no_cuda_device_is_refused() -> None:
    with pytest.raises(bnkit.BackendError, match=r"DLPack's type 10.*move it to the host"):
        backend().asarray(Exported(ROCM))


@pytest.mark.parametrize("kind", [CPU, PINNED])
def test_an_array_on_the_host_is_moved(kind: int) -> None:
    given = Exported(kind)
    if kind == PINNED:  # which NumPy takes for the host's, but its own arrays never say
        given.__class__ = type("Pinned", (Exported,), {"__array__": lambda self, *args, **options: self.host})
    found = backend().asarray(given)
    np.testing.assert_array_equal(found.source, given.host)


@pytest.mark.parametrize("given", [np.arange(3), [0, 1, 2], np.float32(2), 7], ids=lambda a: type(a).__name__)
def test_what_numpy_takes_is_moved(given: Any) -> None:
    found = backend().asarray(given, dtype="float64")
    np.testing.assert_array_equal(found.source, np.asarray(given, dtype="float64"))
    assert found.source.dtype == np.float64
