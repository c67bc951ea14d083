"""The distribution: what the wheel holds, that it runs where it was not built, and what importing bnkit costs."""

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT

import bnkit

PACKAGES = {"bnkit": ROOT / "bnkit", **{n: ROOT / "backends" / n for n in ("bnkit_numpy", "bnkit_cupy")}}
LEVELS = {"x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64", "neon", "generic"}
BIN = "Scripts" if os.name == "nt" else "bin"


def run(*command: str | Path, cwd: Path, **extra: str) -> str:
    """What `command` prints, run in `cwd` without this run's paths and settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BNKIT_", "PYTHON"))}
    # Wide, and not a terminal: rich must not break the words that a test looks for.
    environment = {**kept, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUTF8": "1", **extra}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def unavailable(reason: str) -> None:
    """Skip, but fail in CI, where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def fresh_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a new virtual environment; skips where pip reaches no index."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / BIN / "python"
    probe = [python, "-m", "pip", "download", "--no-deps", "-q", "-d", folder, "scikit-build-core"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        unavailable("pip reaches no package index")
    return python


def build_wheel(python: Path, folder: Path, **extra: str) -> Path:
    # What the wheel holds and where it runs is the same without optimization, which takes most of the compile's time.
    debug = "--config-settings=cmake.build-type=Debug"
    run(python, "-m", "pip", "wheel", ROOT, "--no-deps", debug, "-w", folder, cwd=folder, **extra)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(fresh_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(fresh_python, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed_python(fresh_python: Path, wheel: Path) -> Path:
    """`fresh_python` with the wheel and what it depends on, and nothing else."""
    run(fresh_python, "-m", "pip", "install", wheel, cwd=wheel.parent)
    return fresh_python


@pytest.fixture(scope="session")
def pure_wheel(fresh_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built where the C++ compiler fails: Python in its place, which refuses a compiler's options."""
    if sys.platform == "win32":
        pytest.skip("MSBuild does not read CXX")
    return build_wheel(fresh_python, tmp_path_factory.mktemp("pure"), CXX=sys.executable, CC=sys.executable)


def test_the_compiled_kernels_are_installed() -> None:
    if importlib.util.find_spec("bnkit_numpy._kernels") is None:
        unavailable("bnkit was installed without its compiled kernels: see `pip install -v` for the compiler's error")


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_every_module_and_type_marker(wheel: Path, package: str) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    base = PACKAGES[package]
    kinds = ("*.py", "*.pyi", "*.cu", "*.cuh", "*.css", "*.html", "*.js")
    sources = {p.relative_to(base.parent).as_posix() for kind in kinds for p in base.rglob(kind)}
    assert sources | {f"{package}/py.typed"} <= shipped


@pytest.mark.slow
def test_the_wheel_holds_the_licence_and_neither_cpp_sources_nor_tables_of_tests(wheel: Path) -> None:
    shipped = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in shipped)
    assert not [name for name in shipped if name.endswith((".cpp", ".hpp", "registers.json"))]


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(installed_python: Path, tmp_path: Path) -> None:
    for command in ([installed_python.with_name("bnkit")], [installed_python, "-m", "bnkit"]):
        assert "compiled kernels" in run(*command, "info", cwd=tmp_path)


@pytest.mark.slow
def test_info_says_that_the_compiled_kernels_are_in(installed_python: Path, tmp_path: Path) -> None:
    report = json.loads(run(installed_python, "-m", "bnkit", "info", "--json", cwd=tmp_path))
    numpy = report["backends"]["numpy"]
    if not numpy["compiled_kernels"]:
        unavailable("no C++ compiler")
    assert numpy["simd"] in LEVELS


@pytest.mark.slow
def test_the_compiled_module_has_the_version_of_the_package(installed_python: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, bnkit; print(bnkit.__version__)\n"
        "print(u.find_spec('bnkit_numpy._kernels') and __import__('bnkit_numpy._kernels')._kernels.version())"
    )
    package, module = run(installed_python, "-c", code, cwd=tmp_path).split()
    if module == "None":
        unavailable("no C++ compiler")
    assert module == package


@pytest.mark.slow
def test_a_failed_compile_gives_a_pure_wheel_that_says_so(
    pure_wheel: Path, installed_python: Path, tmp_path: Path
) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    pip = (installed_python, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "pure", pure_wheel)
    run(*pip, cwd=tmp_path)
    info = (installed_python, "-m", "bnkit", "info")
    # PYTHONPATH comes before the environment's own packages, whose dependencies it borrows.
    assert "compiled kernels" in run(*info, cwd=tmp_path, PYTHONPATH=str(tmp_path / "pure"))
    numpy = json.loads(run(*info, "--json", cwd=tmp_path, PYTHONPATH=str(tmp_path / "pure")))["backends"]["numpy"]
    assert numpy["compiled_kernels"] is False
    assert numpy["simd"] is None


def test_importing_bnkit_imports_nothing_heavy(tmp_path: Path) -> None:
    other_arrays = ["cupy", "torch", "ml_dtypes", "array_api_strict", "bnkit_numpy", "bnkit_cupy"]
    heavy = [*other_arrays, "jinja2", "matplotlib", "sklearn", "pooch", "typer", "rich"]
    code = f"import sys, bnkit; print(*(name for name in {heavy} if name in sys.modules))"
    assert run(sys.executable, "-c", code, cwd=tmp_path).split() == []


MODULES = ("data", "experiments", "gradcheck", "measure", "optim", "testing", "tutorial")


def test_dir_of_the_package_lists_its_public_names_and_modules_alone() -> None:
    assert dir(bnkit) == sorted({"__version__", *bnkit.__all__, *MODULES})
    assert all(hasattr(bnkit, name) for name in dir(bnkit))


@pytest.mark.parametrize("name", MODULES)
def test_dir_of_a_public_module_lists_its_public_names_alone(name: str) -> None:
    module = getattr(bnkit, name)
    assert dir(module) == sorted(module.__all__)
    assert not [public for public in dir(module) if inspect.ismodule(getattr(module, public))]


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in MODULES)])
def test_a_star_import_brings_what_dir_lists(name: str) -> None:
    module = importlib.import_module(f"bnkit{name}")
    names: dict[str, object] = {}
    exec(f"from bnkit{name} import *", names)
    assert set(module.__all__) == names.keys() - {"__builtins__"}


def test_dir_of_optim_lists_every_optimizer() -> None:
    assert {"SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW"} <= set(dir(bnkit.optim))
