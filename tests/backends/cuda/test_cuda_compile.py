"""The CUDA kernels compile without a GPU and spill nothing, and the gate that says so can fail."""

import json
import os
import platform
import sys

import cuda_gates
import nvrtc
import pytest
from nvrtc import Program, Resources

TUNED = ("sm_90",)  # of the kernels themselves; .ci/cuda_gates takes all architectures
QUICK = ("sm_75", "sm_90")
OPTIONS = ("-std=c++17",)
KERNEL = "template <typename T> __global__ void scale(T* x) { x[threadIdx.x] *= FACTOR; }"
# Sixty-four values in each of 2,048 threads of a multiprocessor: 32 registers are left to hold them.
SPILLING = """
template <typename T, int held> __global__ void __launch_bounds__(1024, 2) keep(const T* x, T* y, int rounds) {
    T of[held];
    #pragma unroll
    for (int i = 0; i < held; ++i) of[i] = x[threadIdx.x + 1024 * i];
    for (int r = 0; r < rounds; ++r) {
        #pragma unroll
        for (int i = 0; i < held; ++i) of[i] = of[i] * of[(i + 7) % held] + x[r + i];
    }
    #pragma unroll
    for (int i = 0; i < held; ++i) y[threadIdx.x + 1024 * i] = of[i];
}
"""
# A place that only the run decides has no register.
INDEXED = """
__global__ void pick(const float* x, float* y, int n) {
    float of[64];
    for (int i = 0; i < 64; ++i) of[i] = x[i] * n;
    for (int i = 0; i < n; ++i) of[static_cast<int>(x[i]) & 63] += 1;
    y[0] = of[n & 63];
}
"""
CALLED = (
    INDEXED.replace("__global__", "__device__ __noinline__")
    + """
__global__ void call(const float* x, float* y, int n) { pick(x, y, n); }
"""
)


@pytest.fixture(autouse=True, scope="module")
def compiler():
    if nvrtc.version() is None:
        reason = f"needs {' and '.join(nvrtc.PACKAGES)}"
        if os.environ.get("CI") and (sys.platform, platform.machine()) == ("linux", "x86_64"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def program(tmp_path):
    """Makes a program of a text."""

    def make(text, *names, options=OPTIONS):
        file = tmp_path / "written.cu"
        file.write_text(text)
        return Program(file, options, names)

    return make


@pytest.fixture(scope="module")
def found():
    return cuda_gates.compile_all(cuda_gates.programs(), TUNED)


@pytest.mark.slow
def test_every_kernel_that_can_be_asked_for_compiles_and_spills_nothing(found):
    assert found
    assert cuda_gates.spills(found) == []


@pytest.mark.slow
def test_every_kernel_takes_what_the_table_says(found):
    made_by, table = cuda_gates.read_table()
    assert made_by == nvrtc.version()
    assert cuda_gates.differences(found, table) == [], cuda_gates.REMEDY


def test_the_table_has_every_architecture_of_every_kernel():
    _, table = cuda_gates.read_table()
    assert {tuple(row) for row in table.values()} == {cuda_gates.ARCHITECTURES}


@pytest.mark.parametrize(
    ("text", "name"),
    [(SPILLING, "keep<float, 64>"), (INDEXED, "pick"), (CALLED, "call")],
    ids=["held", "indexed", "called"],
)
def test_a_kernel_made_to_spill_is_caught(program, tmp_path, text, name):
    found = cuda_gates.compile_all([program(text, name)], QUICK, tmp_path)
    said = cuda_gates.spills(found)
    assert len(said) == len(QUICK)
    assert all("spills on sm_" in line and "__launch_bounds__" in line for line in said)


def test_the_same_kernel_with_less_to_hold_passes(program, tmp_path):
    found = cuda_gates.compile_all([program(SPILLING, "keep<float, 8>")], QUICK, tmp_path)
    assert cuda_gates.spills(found) == []


def test_what_does_not_compile_is_told_with_its_file_and_line(program, tmp_path):
    with pytest.raises(RuntimeError, match=r"written.cu does not compile for sm_90:\nwritten.cu\(1\): error: .*FACTOR"):
        cuda_gates.compile_all([program(KERNEL, "scale<float>")], ["sm_90"], tmp_path)


def test_a_name_that_is_no_kernel_is_told(program, tmp_path):
    with pytest.raises(RuntimeError, match="does not compile for sm_90"):
        cuda_gates.compile_all([program(KERNEL, "shrink<float>", options=("-DFACTOR=2",))], ["sm_90"], tmp_path)


def test_the_machine_code_is_of_the_architecture_and_holds_the_kernels(program):
    names = ("scale<float>", "scale<double>")
    compiled = nvrtc.compile_program(program(KERNEL, *names, options=("-DFACTOR=2",)), "sm_90")
    assert set(compiled.resources) == set(names)
    assert compiled.cubin.startswith(b"\x7fELF")
    assert all(mangled in compiled.cubin for mangled in (b"_Z5scaleIfEvPT_", b"_Z5scaleIdEvPT_"))


def test_the_report_of_the_compiler_is_read():
    log = (
        "ptxas info    : Compiling entry function '_Z1k' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z1k\n"
        "ptxas         .     592 bytes stack frame, 1064 bytes spill stores, 1020 bytes spill loads\n"
        "ptxas info    : Used 32 registers, used 1 barriers, 592 bytes cumulative stack size, 400 bytes smem\n"
        "ptxas info    : Function properties for _Z6helper\n"
        "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    )
    expected = {"_Z1k": Resources(32, 400, 592, 2084), "_Z6helper": Resources(0, 0, 0, 0)}
    assert nvrtc.read_report(log) == expected


TABLE = {"a.cu k<1>": {"sm_75": [40, 0], "sm_90": [38, 400]}}


@pytest.mark.parametrize(
    ("kernel", "registers", "shared", "said"),
    [
        ("a.cu k<1>", 38, 400, []),
        ("a.cu k<1>", 41, 400, ["takes 41 registers and 400 bytes of shared memory on sm_90; in the table it is 38"]),
        ("a.cu k<1>", 36, 400, ["takes 36 registers"]),
        ("a.cu k<1>", 38, 500, ["and 500 bytes of shared memory"]),
        ("a.cu k<2>", 38, 400, ["k<1> is in the table, and nothing asks for it", "in the table it is not there"]),
    ],
)
def test_what_is_not_as_in_the_table_is_told(kernel, registers, shared, said):
    found = {kernel: {"sm_90": Resources(registers, shared, 0, 0)}}
    told = cuda_gates.differences(found, TABLE)
    assert len(told) == len(said)
    assert all(part in line for part, line in zip(said, told))


def test_a_written_table_is_what_was_found(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_gates, "TABLE", tmp_path / "registers.json")
    found = {
        "a.cu k": {a: Resources(30, 16, 0, 0) for a in QUICK},
        "a.cu _Z1f": {a: Resources(0, 0, 0, 0) for a in QUICK},
    }
    cuda_gates.write_table(found)
    assert cuda_gates.read_table() == (nvrtc.version(), {"a.cu k": {a: [30, 16] for a in QUICK}})
    assert cuda_gates.differences(found, cuda_gates.read_table()[1]) == []
    json.loads((tmp_path / "registers.json").read_text())


def test_nothing_is_compiled_twice_until_a_source_changes(program, tmp_path, monkeypatch):
    compiled = []
    once = nvrtc.compile_program
    monkeypatch.setattr(nvrtc, "compile_program", lambda *asked: compiled.append(asked) or once(*asked))
    written = program('#include "factor.cuh"\n' + KERNEL, "scale<float>")
    results = []
    for factor in ("2", "2", "x[1]"):
        (tmp_path / "factor.cuh").write_text(f"#define FACTOR {factor}")
        results.append(cuda_gates.resources_of(written, "sm_90", tmp_path))
    assert len(compiled) == 2
    assert results[0] == results[1] != {}
