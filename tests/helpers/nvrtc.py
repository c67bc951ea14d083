"""CUDA programs compiled by NVRTC out of its pip packages: no GPU, no driver and no toolkit is needed."""

import ctypes
import functools
import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGES = {"nvidia-cuda-nvrtc": "libnvrtc.so.*", "nvidia-cuda-runtime": "cuda_fp16.h"}
# What CuPy 14 adds to the options of a RawModule: with others the registers would not be those of a user's kernels.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


class Program(NamedTuple):
    """What is compiled at once; names: the C++ name expressions of its kernels."""

    file: Path
    options: tuple[str, ...]
    names: tuple[str, ...]


class Resources(NamedTuple):
    """Of a kernel, in bytes but for the registers, or of a function that is not inlined and has none of its own."""

    registers: int
    shared: int
    stack: int
    spilled: int  # stores and loads

    @property
    def local(self) -> bool:
        """Whether something that should lie in registers lies in memory."""
        return self.stack > 0 or self.spilled > 0


class Compiled(NamedTuple):
    cubin: bytes
    resources: dict[str, Resources]  # by name expression, and of what has none by mangled name


def version() -> str | None:
    """Of the compiler, or None where one of the packages is not installed."""
    return metadata.version("nvidia-cuda-nvrtc") if all(map(_installed, PACKAGES)) else None


def compile_program(program: Program, architecture: str) -> Compiled:
    """The machine code for `architecture`, as "sm_90"; RuntimeError with the compiler's words where there is none."""
    nvrtc, handle = _library(), ctypes.c_void_p()
    source = program.file.read_bytes()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(handle), source, program.file.name.encode(), 0, None, None))
    try:
        for name in program.names:
            _check(nvrtc.nvrtcAddNameExpression(handle, name.encode()))
        include = [f"-I{folder}" for folder in (program.file.parent, _installed("nvidia-cuda-runtime"))]
        options = [*program.options, *CUPY_OPTIONS, f"-arch={architecture}", *include, "-Xptxas=-v"]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(handle, len(options), encoded)
        log = _bytes_of(handle, "ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise RuntimeError(f"{program.file.name} does not compile for {architecture}:\n{log}")
        names = {_lowered(handle, name): name for name in program.names}
        found = {names.get(mangled, mangled): resources for mangled, resources in read_report(log).items()}
        missing = set(program.names) - set(found)
        assert not missing, f"the compiler reports nothing of {missing}:\n{log}"
        return Compiled(_bytes_of(handle, "CUBIN"), found)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))


def read_report(log: str) -> dict[str, Resources]:
    """What `ptxas -v` says of each kernel and function, by mangled name."""
    found: dict[str, Resources] = {}
    parts = re.split(r"Function properties for (\S+)", log)
    for name, text in zip(parts[1::2], parts[2::2]):
        stack, stored, loaded = _numbers(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", text)
        registers, shared = _numbers(r"Used (\d+) registers", text), _numbers(r"(\d+) bytes smem", text)
        found[name] = Resources(*registers or (0,), *shared or (0,), stack, stored + loaded)
    return found


def _numbers(pattern: str, text: str) -> tuple[int, ...]:
    match = re.search(pattern, text)
    return tuple(map(int, match.groups())) if match else ()


def _installed(package: str) -> Path | None:
    """The folder of the package's file that is needed."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())).parent for f in files if f.match(PACKAGES[package])), None)


@functools.cache
def _library() -> ctypes.CDLL:
    folder = _installed("nvidia-cuda-nvrtc")
    assert folder is not None, "call version() first"
    library = ctypes.CDLL(str(next(folder.glob(PACKAGES["nvidia-cuda-nvrtc"]))))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _check(status: int) -> None:
    assert status == 0, _library().nvrtcGetErrorString(status).decode()


def _bytes_of(handle: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(handle, buffer))
    return buffer.raw


def _lowered(handle: ctypes.c_void_p, name: str) -> str:
    lowered = ctypes.c_char_p()
    _check(_library().nvrtcGetLoweredName(handle, name.encode(), ctypes.byref(lowered)))
    assert lowered.value is not None
    return lowered.value.decode()
