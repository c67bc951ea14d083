"""Every CUDA kernel that the backend can ask for, compiled for every architecture, and its registers against a table.

    python tests/helpers/cuda_gates.py [--architectures sm_75,sm_90] [--write]

Fails on what does not compile, on a spill, and where the table is not what the compiler says; --write rewrites it.
What was compiled is kept in build/cuda/, by its content.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nvrtc
from cuda_host.compiler import text_of
from nvrtc import Program, Resources
from places import ROOT

TABLE = ROOT / "backends" / "bnkit_cupy" / "kernels" / "registers.json"
CACHE = ROOT / "build" / "cuda"
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
REMEDY = f"if that is meant, run bash .ci/cuda_gates --write and commit {TABLE.relative_to(ROOT)}"

Found = dict[str, dict[str, Resources]]  # by kernel, "file.cu name<…>", and architecture
Table = dict[str, dict[str, list[int]]]  # the same, [registers, bytes of shared memory]


def programs() -> list[Program]:
    from bnkit_cupy.launch import instantiations

    asked = (Program(Path(file), tuple(options), tuple(names)) for file, options, names, _ in instantiations())
    return list(dict.fromkeys(asked))


def compile_all(
    todo: Sequence[Program], architectures: Iterable[str], cache: Path = CACHE, processes: int | None = None
) -> Found:
    """What each kernel takes; RuntimeError with the compiler's words for one that does not compile."""
    jobs = [(program, architecture, cache) for architecture in architectures for program in todo]
    processes = min(processes or len(os.sched_getaffinity(0)), len(jobs)) or 1
    found: Found = {}
    # Spawned: a process that has threads, as one of tests has, is not safe to fork.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for (program, architecture, _), resources in zip(jobs, pool.map(resources_of, *zip(*jobs))):
            for name, taken in resources.items():
                of_kernel = found.setdefault(f"{program.file.name} {name}", {})
                assert of_kernel.setdefault(architecture, taken) == taken, f"{name} is asked for with other options"
    return found


def resources_of(program: Program, architecture: str, cache: Path) -> dict[str, Resources]:
    path = cache / f"{_key(program, architecture)}.json"
    if path.exists():
        return {name: Resources(*taken) for name, taken in json.loads(path.read_text()).items()}
    compiled = nvrtc.compile_program(program, architecture)
    assert compiled.cubin.startswith(b"\x7fELF")
    cache.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}")
    half.write_text(json.dumps(compiled.resources))
    half.replace(path)
    return compiled.resources


def _key(program: Program, architecture: str) -> str:
    """A hash of all that decides what is compiled and what is said of it."""
    how = Path(nvrtc.__file__).read_text(encoding="utf-8")
    texts = [nvrtc.version(), architecture, *program.options, *program.names, how, text_of(program.file)]
    digest = hashlib.sha256()
    for part in (str(text).encode() for text in texts):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def spills(found: Found) -> list[str]:
    return [
        f"{kernel} spills on {architecture}: {taken.stack} bytes of stack, {taken.spilled} bytes stored and loaded; "
        "let a thread hold less, or lower the second number of __launch_bounds__"
        for kernel, by_architecture in found.items()
        for architecture, taken in by_architecture.items()
        if taken.local
    ]


def differences(found: Found, table: Table) -> list[str]:
    """Where the table is not what was found, on the architectures that were asked for."""
    known, architectures = _rows(found), {a for by_architecture in found.values() for a in by_architecture}
    said = [f"{kernel} is in the table, and nothing asks for it" for kernel in table if kernel not in known]
    for kernel, row in known.items():
        for architecture in sorted(architectures, key=_number):
            expected, taken = table.get(kernel, {}).get(architecture), row[architecture]
            if expected != taken:
                what = "not there" if expected is None else "{} registers and {} bytes".format(*expected)
                is_now = "{} registers and {} bytes of shared memory".format(*taken)
                said.append(f"{kernel} takes {is_now} on {architecture}; in the table it is {what}")
    return said


def _rows(found: Found) -> Table:
    """The kernels among what was found; a function has no registers of its own."""
    return {
        kernel: {architecture: [taken.registers, taken.shared] for architecture, taken in row.items()}
        for kernel, row in found.items()
        if all(taken.registers for taken in row.values())
    }


def read_table() -> tuple[str, Table]:
    """The version of the compiler that made it, and its rows."""
    whole = json.loads(TABLE.read_text())
    return whole["nvrtc"], whole["kernels"]


def write_table(found: Found) -> None:
    """One line a kernel, for whoever reads a change of it."""
    lines = [f"{json.dumps(kernel)}: {json.dumps(row)}" for kernel, row in sorted(_rows(found).items())]
    head = f'{{"nvrtc": "{nvrtc.version()}", "columns": ["registers", "bytes of shared memory"], "kernels": {{\n'
    TABLE.write_text(head + ",\n".join(lines) + "\n}}\n")


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))


def main() -> str | None:
    """What is wrong, if anything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--write", action="store_true", help="write the table, of all architectures")
    options = parser.parse_args()
    architectures = ARCHITECTURES if options.write else options.architectures.split(",")
    if nvrtc.version() is None:
        return f"the gates need {' and '.join(nvrtc.PACKAGES)}; run pip install -e '.[test]'"
    start, todo = time.perf_counter(), programs()
    found = compile_all(todo, architectures)
    for architecture in architectures:
        taken = [row[architecture] for row in found.values()]
        most = max(resources.registers for resources in taken)
        print(f"{architecture}: {len(taken)} kernels and functions, up to {most} registers")
    print(f"{len(todo)} programs for {len(architectures)} architectures in {time.perf_counter() - start:.0f} s")
    if found_spills := spills(found):
        return "\n".join(found_spills)
    if options.write:
        write_table(found)
        return None
    made_by, table = read_table()
    if made_by != nvrtc.version():
        return f"the table is of NVRTC {made_by}, found {nvrtc.version()}; run pip install -e '.[test]', or {REMEDY}"
    said = differences(found, table)
    return "\n".join([*said, REMEDY]) if said else None


if __name__ == "__main__":
    sys.exit(main())
