"""Keras, which takes its settings when it is imported."""

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("torch", reason="PyTorch is not installed; it comes with the extra 'conformance'")
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed; it comes with the extra 'conformance'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))  # not the user's settings
        yield importlib.import_module("keras")
