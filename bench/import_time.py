"""Prints the times of `import bnkit` and `import numpy`, each in a new interpreter, in alternation.

    python bench/import_time.py [RUNS]

The time is that of the import statement, without the start of the interpreter. The time of bnkit includes NumPy.
"""

import statistics
import subprocess
import sys
import tempfile

MODULES = ("numpy", "bnkit")
LIMIT = 1.5


def import_ms(module: str) -> float:
    """Milliseconds that a new interpreter spends in `import module`."""
    code = f"from time import perf_counter as now; t = now(); import {module}; print((now() - t) * 1e3)"
    # Outside the repository, so that Python imports the installed package.
    return float(
        subprocess.run([sys.executable, "-c", code], cwd=tempfile.gettempdir(), check=True, capture_output=True).stdout
    )


def main(runs: int) -> None:
    for module in MODULES:
        import_ms(module)  # fills the disk cache and writes the bytecode
    times = {module: [] for module in MODULES}
    for _ in range(runs):
        for module in MODULES:
            times[module].append(import_ms(module))
    for module in MODULES:
        low, median, high = statistics.quantiles(times[module], n=4)
        print(f"import {module:6s} {median:7.1f} ms (quartiles {low:.1f} to {high:.1f}, {runs} runs)")
    ratio = statistics.median(b / a for a, b in zip(times["numpy"], times["bnkit"], strict=True))
    print(f"ratio {ratio:.2f}, median of the pairs; the limit is {LIMIT}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
