"""The fixture `backend`: NumPy, CuPy where there is a device, and the strict double."""

import os

import array_api_strict
import hypothesis
import pytest
from strict_backend import StrictBackend

import bnkit
import bnkit.backend

array_api_strict.set_array_api_strict_flags(api_version="2025.12")
bnkit.backend.register("strict", StrictBackend)

# derandomize: a failure in CI is the same failure at home
hypothesis.settings.register_profile("bnkit", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("bnkit")


@pytest.fixture(params=["numpy", "cupy", "strict"])
def backend(request: pytest.FixtureRequest) -> bnkit.backend.Backend:
    try:
        return bnkit.get_backend(request.param)
    except bnkit.BackendError as error:
        if request.param in os.environ.get("BNKIT_REQUIRE", "").split(","):
            pytest.fail(str(error))
        pytest.skip(str(error))


def pytest_report_header() -> list[str]:
    """Which backends the tests run on, and why not on the others: told once, not with each skip."""
    known = bnkit.backends()
    return [f"backend {name}: {'runs' if info.usable else info.reason}" for name, info in known.items()]
