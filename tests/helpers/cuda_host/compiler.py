"""Compiling a .cu file as C++ into a shared library, once: a library's name is the hash of all that it depends on."""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_host.assembly import guarded

HERE = Path(__file__).resolve().parent
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
# -O1: compiling takes most of the time of a test. No contraction: the same bits on any CPU.
_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
_WARNINGS = ("-Wall", "-Wno-unknown-pragmas", "-Wno-unused")
_runtime_lock = threading.Lock()


def missing_compiler() -> str:
    """Why the host double cannot run here; empty where it can."""
    if platform.system() != "Linux":
        return f"the host double of CUDA reads ELF files, and runs on Linux only, not on {platform.system()}"
    if _compiler() is None:
        return "the host double of CUDA needs a C++17 compiler: install g++ or clang++, or name one in CXX"
    return ""


def is_checked(checked: bool) -> bool:
    """Whether a module is checked: `CUDA_HOST_CHECKED` in the environment makes all of them so."""
    return checked or bool(os.environ.get("CUDA_HOST_CHECKED"))


def text_of(path: Path) -> str:
    """The file with those that it includes from beside it, one after another."""
    texts, waiting, seen = [], [path], set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.exists():
            continue
        seen.add(file)
        texts.append(file.read_text(encoding="utf-8"))
        waiting += [file.parent / name for name in _INCLUDE.findall(texts[-1])]
    return "\n".join(texts)


def compiled(path: Path, options: Sequence[str], names: Sequence[str], folder: Path, *, checked: bool) -> Path:
    """The library of these kernels, compiled into `folder` unless it is there.

    checked: every load and store calls the runtime (`runtime/instrumentation.cpp`).
    `CUDA_HOST_FLAGS` in the environment adds flags, as for a sanitizer.
    """
    entries = "".join(f"CUDA_HOST_ENTRY({i}, {name})\n" for i, name in enumerate(names))
    stub = f'#include "{path}"\n{entries}'
    source = text_of(path)
    # The device's compiler has options of its own; these mean the same to both.
    defines = [option for option in options if option.startswith(("-D", "-U"))]
    flags = [*_FLAGS, *os.environ.get("CUDA_HOST_FLAGS", "").split()]
    own = [*defines, "-DBNKIT_HOST=1", "-I", str(HERE / "shim"), "-include", "cuda_host.hpp", *_WARNINGS]
    if is_checked(checked):
        own += ["-fsanitize=thread", "-gdwarf-4", "-g1"]  # whose reports name the line
    library = folder / f"{path.stem}-{_hash(stub, source, _own_text(), *flags, *own, _version())}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    runtime = _runtime(folder, flags)
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        (work / "stub.cu").write_text(stub, encoding="utf-8")
        _run(*flags, *own, "-S", "-x", "c++", str(work / "stub.cu"), "-o", str(work / "kernels.s"))
        assembly = (work / "kernels.s").read_text(encoding="utf-8")
        (work / "guarded.s").write_text(guarded(assembly, source), encoding="utf-8")
        # Without -fsanitize=thread: what that calls is in the runtime.
        inputs = [str(work / "guarded.s"), *map(str, runtime)]
        _run(*flags, "-shared", *inputs, "-o", str(work / "module.so"), "-pthread", "-ldl")
        (work / "module.so").replace(library)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return library


def prebuild(
    instantiations: Iterable[tuple[Path, Sequence[str], Sequence[str], bool]], folder: Path, *, checked: bool
) -> None:
    """Compile all of these (path, options, names, cooperative), as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # One library serves cooperative launches and others.
        wanted = {(path, tuple(options), tuple(names)) for path, options, names, _ in instantiations}
        jobs = [pool.submit(compiled, *one, folder, checked=checked) for one in sorted(wanted)]
        for job in jobs:
            job.result()


@functools.cache
def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("clang++")


@functools.cache
def _version() -> str:
    return subprocess.run([str(_compiler()), "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _own_text() -> str:
    files = sorted([*HERE.glob("shim/*"), *HERE.glob("runtime/*"), HERE / "assembly.py", Path(__file__)])
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def _runtime(folder: Path, flags: Sequence[str]) -> list[Path]:
    """The objects of the runtime, which is the same for every module and never instrumented."""
    objects = folder / f"runtime-{_hash(_own_text(), *flags, _version())}"
    sources = sorted(HERE.glob("runtime/*.cpp"))
    with _runtime_lock:
        if not objects.exists():
            work = Path(tempfile.mkdtemp(dir=folder))
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                commands = [(*flags, "-Wall", "-c", str(s), "-o", str(work / f"{s.stem}.o")) for s in sources]
                list(pool.map(lambda command: _run(*command), commands))
            try:
                work.rename(objects)
            except OSError:  # another process was first
                shutil.rmtree(work, ignore_errors=True)
    return [objects / f"{source.stem}.o" for source in sources]


def _run(*arguments: str) -> None:
    done = subprocess.run([str(_compiler()), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{_compiler()} {' '.join(arguments)} failed:\n{done.stderr}")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
