"""The fixtures `backend`, NumPy, CuPy where there is a device and the strict double; `cupy_backend`,
`cuda_host_folder`, `offline`.

The backend "cuda_host", the CuPy backend's kernels executed on the CPU, is known by name.
"""

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import array_api_strict
import hypothesis
import pytest
from cuda_host.host_backend import CudaHostBackend
from strict_backend import StrictBackend
from usable_backends import usable

import bnkit
import bnkit.backend

array_api_strict.set_array_api_strict_flags(api_version="2025.12")
bnkit.backend.register("strict", StrictBackend)
bnkit.backend.register("cuda_host", CudaHostBackend)

# derandomize: a failure in CI is the same failure at home
hypothesis.settings.register_profile("bnkit", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("bnkit")


@pytest.fixture(params=["numpy", "cupy", "strict"])
def backend(request: pytest.FixtureRequest) -> bnkit.backend.Backend:
    return usable(request.param)


@pytest.fixture
def cupy_backend() -> bnkit.backend.Backend:
    return usable("cupy")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled kernels are kept from one run to the next, where pytest keeps a cache."""
    cache = getattr(config, "cache", None)
    if cache is None:
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
    CudaHostBackend.folder = cache.mkdir("cuda_host") if cache else Path(folder.name)


@pytest.fixture(scope="session")
def cuda_host_folder() -> Path:
    return CudaHostBackend.folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the caller's, and no host but this one."""
    monkeypatch.delenv("BNKIT_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    resolve = socket.getaddrinfo

    def only_local(host: Any, *args: Any, **kwargs: Any) -> Any:
        assert host == "127.0.0.1", f"a test asked for {host}"
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_local)


def pytest_report_header() -> list[str]:
    """Which backends the tests run on, and why not on the others: told once, not with each skip."""
    known = bnkit.backends()
    return [f"backend {name}: {'runs' if info.usable else info.reason}" for name, info in known.items()]
