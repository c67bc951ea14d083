"""One command for each task of a contributor: `nox -s TASK`, and `nox --list` for the tasks.

The tasks run in the environment that nox itself is installed in, which CONTRIBUTING.md sets up. The conformance tests
get an environment for themselves, since PyTorch brings another NVRTC.
"""

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "test"]


def run(session: nox.Session, tool: str, *arguments: str) -> None:
    """Run a tool of this environment, whether or not the environment is activated."""
    session.run(str(Path(sys.executable).with_name(tool)), *arguments, *session.posargs, external=True)


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests that take at most a few seconds each."""
    run(session, "pytest")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that build wheels, train on MNIST or take long for another reason."""
    run(session, "pytest", "-m", "slow")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style, the formatting and who imports whom."""
    run(session, "ruff", "check")
    run(session, "ruff", "format", "--check")
    run(session, "lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    run(session, "mypy")


@nox.session(venv_backend="venv")
def conformance(session: nox.Session) -> None:
    """Compare with PyTorch, Keras, ONNX, oneDNN and the array API, in an environment of its own."""
    session.install("torch==2.13.0")  # by itself and exactly this one, or pip may choose a build with CUDA
    session.install("-e", ".[test,conformance]")
    session.run("pytest", "tests/conformance", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer; `-- thread`: ThreadSanitizer."""
    session.run("bash", ".ci/sanitize", *session.posargs, external=True)


@nox.session
def sanitize_cuda(session: nox.Session) -> None:
    """Execute the CUDA kernels on the CPU and check each access for races and bounds; `-- address`: ASan, UBSan."""
    session.run("bash", ".ci/sanitize_cuda", *session.posargs, external=True)


@nox.session
def gates(session: nox.Session) -> None:
    """Compile the CUDA kernels for every architecture and compare their registers; `-- --write` renews the table."""
    session.run("bash", ".ci/cuda_gates", *session.posargs, external=True, env={"PYTHON": sys.executable})


@nox.session
def gpu(session: nox.Session) -> None:
    """Do everything that needs a GPU: tests, compute-sanitizer and the benchmark, in less than 8 minutes."""
    session.run("bash", "bench/gpu.sh", *session.posargs, external=True, env={"PYTHON": sys.executable})


@nox.session
def bench(session: nox.Session) -> None:
    """Time bnkit's ops by pytest-benchmark; `-- -k 100x100` chooses cases."""
    run(session, "pytest", "bench")


@nox.session
def docs(session: nox.Session) -> None:
    """Make the documents' speed tables and the experiments' report page from the stored results."""
    session.run(sys.executable, "bench/readme_table.py", external=True)
    run(session, "bnkit", "report", "docs")


@nox.session
def ci(session: nox.Session) -> None:
    """Run everything that CI runs."""
    session.run("bash", ".ci/run", *session.posargs, external=True)
