"""The CuPy backend where CuPy, the driver, a device or NVRTC is missing: cause, remedy, and what `auto` does.

Each case is a package `cupy` made for it, in a process of its own.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

RUNTIME = """
    __version__ = "14.2.0"
    float32 = "float32"

    class CUDARuntimeError(RuntimeError):
        pass

    class runtime:
        CUDARuntimeError = CUDARuntimeError

        @staticmethod
        def getDeviceCount():
            {count}

        @staticmethod
        def getDevice():
            return 0

    class Device:
        def __init__(self, number):
            self.number = number

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

    class nvrtc:
        @staticmethod
        def getVersion():
            {nvrtc}

    class cuda:
        pass

    cuda.runtime, cuda.nvrtc, cuda.Device = runtime, nvrtc, Device

    class ndarray:
        def __mul__(self, other):
            return self

        __add__ = __mul__

        def sum(self):
            return self

        def item(self):
            return 4.0

    def arange(n, dtype=None):
        return ndarray()
"""
DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"


def runtime(count: str = "return 1", nvrtc: str = "return (13, 0)") -> str:
    return textwrap.dedent(RUNTIME).format(count=count, nvrtc=nvrtc)


class Case(NamedTuple):
    source: str | None  # of cupy/__init__.py; None: no package
    cause: str
    remedy: str


CASES = {
    "no package": Case(None, "package CuPy", "pip install '.[cuda12]'"),
    "an import error": Case(
        "raise ImportError('libcudart.so.13: cannot open shared object file\\nmore lines')\n",
        "cannot import CuPy (ImportError: libcudart.so.13: cannot open shared object file)",
        "pip install '.[cuda12]'",
    ),
    "another error at import": Case(
        "raise RuntimeError('CuPy is not correctly installed')\n",
        "cannot import CuPy (RuntimeError: CuPy is not correctly installed)",
        "pip install '.[cuda12]'",
    ),
    "CuPy 13": Case("__version__ = '13.6.0'\n", "needs CuPy 14 or newer, found 13.6.0", "pip install '.[cuda12]'"),
    "no driver": Case(
        runtime(count=f"raise CUDARuntimeError('{DRIVER}')"),
        "no usable NVIDIA driver (CUDARuntimeError: cudaErrorInsufficientDriver",
        "install or update the NVIDIA driver",
    ),
    "no device": Case(
        runtime(count="raise CUDARuntimeError('cudaErrorNoDevice: no CUDA-capable device is detected')"),
        "no CUDA device",
        "CUDA_VISIBLE_DEVICES",
    ),
    "no device, counted": Case(runtime(count="return 0"), "no CUDA device", "CUDA_VISIBLE_DEVICES"),
    "no NVRTC": Case(
        runtime(nvrtc="raise RuntimeError('CuPy failed to load libnvrtc.so.13: OSError')"),
        "cannot run a kernel on device 0 (RuntimeError: CuPy failed to load libnvrtc.so.13",
        "[ctk]",
    ),
}
REPORT = """
import importlib.util, json, sys, warnings
{block}
import bnkit, bnkit_cupy
{patch}
report = {{}}
for name in ("cupy", "cupy:0"):
    try:
        bnkit.get_backend(name)
    except bnkit.BackendError as error:
        report[name] = [str(error), error.remedy, error.hardware, error.__cause__ is not None]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    report["auto"] = [bnkit.get_backend().name, bnkit.get_backend("auto").name, bnkit.get_backend().name]
report["warnings"] = [str(w.message) for w in caught]
listed = bnkit.backends()
report["listed"] = [listed["cupy"].usable, listed["cupy"].reason, listed["numpy"].usable]
import numpy as np
report["shape"] = bnkit.batch_norm(np.random.rand(4, 2), None, None, train=True)[0].shape
print(json.dumps(report))
"""
NO_PACKAGE = """
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "cupy" else found(name, *args)
"""


def report(folder: Path, source: str | None, *, hardware: bool | None = None) -> dict[str, Any]:
    """What bnkit says in a new process with this CuPy; `hardware`: whether the driver counts a device."""
    if source is not None:
        (folder / "cupy").mkdir()
        (folder / "cupy" / "__init__.py").write_text(source, encoding="utf-8")
    patch = "" if hardware is None else f"bnkit_cupy._device_present = lambda: {hardware}"
    code = REPORT.format(block=NO_PACKAGE if source is None else "", patch=patch)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BNKIT_")}
    kept |= {"PYTHONPATH": os.pathsep.join([str(folder), *(p for p in sys.path if p)]), "PYTHONUTF8": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=kept, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_named_with_its_remedy(case: str, tmp_path: Path) -> None:
    source, cause, remedy = CASES[case]
    told = report(tmp_path, source, hardware=False)
    for name in ("cupy", "cupy:0"):
        message, its_remedy, _, _ = told[name]
        assert cause in message
        assert remedy in its_remedy
        assert message.endswith(its_remedy)
        assert "\n" not in message
    assert told["listed"] == [False, told["cupy"][0], True]
    assert told["shape"] == [4, 2]


@pytest.mark.parametrize("case", [c for c in CASES if c != "no NVRTC"])
def test_auto_falls_back_quietly_on_a_machine_without_a_gpu(case: str, tmp_path: Path) -> None:
    told = report(tmp_path, CASES[case].source, hardware=False)
    assert told["auto"] == ["numpy"] * 3
    assert told["warnings"] == []


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("no device")])
def test_auto_warns_once_on_a_machine_with_a_gpu_that_it_cannot_use(case: str, tmp_path: Path) -> None:
    told = report(tmp_path, CASES[case].source, hardware=True)
    assert told["auto"] == ["numpy"] * 3
    assert len(told["warnings"]) == 1
    assert CASES[case].cause in told["warnings"][0]
    assert CASES[case].remedy in told["warnings"][0]


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith("no device")])
def test_a_hidden_device_is_no_device(case: str, tmp_path: Path) -> None:
    told = report(tmp_path, CASES[case].source, hardware=True)  # as CUDA_VISIBLE_DEVICES= leaves it
    assert told["auto"] == ["numpy"] * 3
    assert told["warnings"] == []


def test_a_usable_cupy_is_the_automatic_choice(tmp_path: Path) -> None:
    properties = {"name": b"GPU", "totalGlobalMem": 2**33, "l2CacheSize": 2**22}
    source = f"{runtime()}\n\ncuda.runtime.getDeviceProperties = staticmethod(lambda d: {properties})\n"
    source += "cuda.runtime.runtimeGetVersion = cuda.runtime.driverGetVersion = staticmethod(lambda: 13020)\n"
    told = report(tmp_path, source)
    assert "cupy" not in told
    assert told["auto"] == ["cupy"] * 3
    assert told["warnings"] == []
    assert told["listed"][0]


def test_an_array_on_a_device_that_is_not_current_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(runtime(count="return 2"), encoding="utf-8")
    code = """
import bnkit, cupy
class OnDevice(cupy.ndarray):
    def __init__(self, number):
        self.device = type("Device", (), {"id": number})
print(bnkit.backend_of(OnDevice(0)).key)
try:
    bnkit.backend_of(OnDevice(1))
except bnkit.BackendError as error:
    print(error)
"""
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, encoding="utf-8", check=True)
    key, message = done.stdout.splitlines()
    assert key == "cupy:0"
    for said in ("device 1", "device 0 is current", "use_backend('cupy:1')"):
        assert said in message


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(runtime(count="return 2"), encoding="utf-8")
    code = "import bnkit\ntry: bnkit.get_backend('cupy:2')\nexcept bnkit.BackendError as error: print(error)"
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, encoding="utf-8", check=True)
    assert "'cupy:2'" in done.stdout
    assert "has 2" in done.stdout
