"""A backend by name, or the reason why a test cannot run."""

import os

import pytest

import bnkit


def usable(name: str) -> bnkit.backend.Backend:
    """The backend; where it cannot run, the test is skipped, or fails if `BNKIT_REQUIRE` names it."""
    try:
        return bnkit.get_backend(name)
    except bnkit.BackendError as error:
        if name in os.environ.get("BNKIT_REQUIRE", "").split(","):
            pytest.fail(str(error))
        pytest.skip(str(error))
