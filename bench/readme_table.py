"""Writes the speed tables of README.md and docs/benchmarks.md from a file that `bnkit bench --json` wrote.

    python bench/readme_table.py [--check] [--results FILE] [--page FILE …]

A table is between two marker comments: `bench` has a line for each case, `bench means` only the means of all cases.
Without --results, it reads the newest file of NumPy's backend in bench/results/. --check writes nothing, and fails if
a page is stale.
"""

import argparse
import json
import os
import statistics
import sys
import textwrap
from pathlib import Path

from bnkit.lab.benchmark import measure

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmarks.md"]
OPS = ("train", "backward")


def newest_results():
    """The file of NumPy's backend, named <device>-<year>-<month>-<day>.json, with the last date."""
    files = sorted((ROOT / "bench" / "results").glob("*.json"), key=lambda path: path.stem[-10:])
    files = [path for path in files if json.loads(path.read_text(encoding="utf-8"))["machine"]["backend"] == "numpy"]
    if not files:
        sys.exit("bench/results must hold a file; run bnkit bench --json bench/results/<device>-<date>.json")
    return files[-1]


def rows_by_case(results):
    """The rows of each case by op, for the cases with a row of every op."""
    measured = {}
    for row in results["records"]:
        if row["through"] == "function" and row["dtype"] == "float32" and row["op"] in OPS:
            measured.setdefault(row["case"], {})[row["op"]] = row
    measured = {case: rows for case, rows in measured.items() if len(rows) == len(OPS)}
    if not measured:
        sys.exit(f"the results must hold float32 rows of {' and '.join(OPS)}, got none")
    return measured


def case_table(results, link):
    """Markdown: the introduction, a line for each case, and the means over all cases."""
    measured, peers = rows_by_case(results), list(results["settings"]["against"])
    resnet = {case.name for case in measure.cases() if case.shape[0] == 50}
    text = (
        f"Training forward / backward on {_machine(results)}: the median time of a call, its one-read bytes a second "
        f"as a share of this machine's copy bandwidth ({results['machine']['copy_gb_per_s']:.0f} GB/s), and the time "
        f"of each other implementation, by its fastest entry, over bnkit's time. All rows are in [{link}]({link}), "
        f"made by `{results['settings']['command']}`."
    )
    lines = [_line("float32", "ms", "share of copy", *peers), "|---" * (3 + len(peers)) + "|"]
    for case, rows in measured.items():
        if case not in resnet:
            cells = [_pair(rows, lambda row: f"{row['median_us'] / 1e3:.3g}")]
            cells.append(_pair(rows, lambda row: f"{row['share']:.0%}"))
            cells += [_pair(rows, lambda row, peer=peer: _times(row, peer)) for peer in peers]
            lines.append(_line(case, *cells))
    for name, cells in _means(measured, peers):
        lines.append(_line(name, "", "", *cells))
    return _block(text, lines)


def mean_table(results, link):
    """Markdown: the introduction and the means over all cases."""
    measured, peers = rows_by_case(results), list(results["settings"]["against"])
    text = (
        f"The time of other implementations over bnkit's, in training forward / backward on {_machine(results)}. "
        f"All rows are in [{link}]({link}); [docs/benchmarks.md](docs/benchmarks.md) has each case."
    )
    lines = [_line("float32", *peers), "|---" * (1 + len(peers)) + "|"]
    return _block(text, lines + [_line(name, *cells) for name, cells in _means(measured, peers)])


TABLES = {"bench": case_table, "bench means": mean_table}


def renewed(page, results, path):
    """The text of `page` with new tables from `results`, the content of `path`."""
    text = page.read_text(encoding="utf-8")
    link = Path(os.path.relpath(path, page.resolve().parent)).as_posix()
    kinds = [kind for kind in TABLES if _markers(kind)[0] in text]
    if not kinds:
        sys.exit(f"{page} must hold the markers of a table, as in {' and '.join(_markers('bench'))}")
    for kind in kinds:
        begin, end = _markers(kind)
        if text.count(begin) != 1 or text.count(end) != 1:
            sys.exit(f"{page} must hold the lines {begin} and {end} once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{TABLES[kind](results, link)}\n\n{end}{rest.split(end)[1]}"
    return text


def _markers(kind):
    return f"<!-- {kind}: made by bench/readme_table.py -->", f"<!-- /{kind} -->"


def _machine(results):
    machine, names = results["machine"], ("numpy", *results["settings"]["against"])
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if name in names)
    return f"{machine['processor']}, {machine['threads']} threads, {machine['simd']}, with {versions}"


def _line(*cells):
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


def _block(text, lines):
    return "\n".join([*textwrap.wrap(text, 120, break_on_hyphens=False), "", *lines])


def _pair(rows, text):
    return " / ".join(text(rows[op]) for op in OPS)


def _times(row, peer):
    ratio = row["peers"][peer].get("ratio")
    return "–" if ratio is None else _ratio(ratio)


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def _means(measured, peers):
    """The lines of all cases: their name, and a cell for each peer."""
    for name, choose in {"geometric mean": statistics.geometric_mean, "worst": min}.items():
        yield f"{name} of all {len(measured)} cases", [_over_all(measured, peer, choose) for peer in peers]


def _over_all(measured, peer, choose):
    """`choose` of the ratios of each op; a dash if a peer has no ratio."""
    cells = []
    for op in OPS:
        ratios = [rows[op]["peers"][peer].get("ratio") for rows in measured.values()]
        ratios = [ratio for ratio in ratios if ratio is not None]
        cells.append(_ratio(choose(ratios)) if ratios else "–")
    return " / ".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page is stale")
    parser.add_argument(
        "--results", type=Path, help="a file of bnkit bench; the default is the newest in bench/results"
    )
    parser.add_argument(
        "--page", type=Path, nargs="+", default=PAGES, help="the default is README.md and docs/benchmarks.md"
    )
    arguments = parser.parse_args()
    path = (arguments.results or newest_results()).resolve()
    results = json.loads(path.read_text(encoding="utf-8"))
    texts = {page: renewed(page, results, path) for page in arguments.page}
    for page, text in texts.items():
        if text != page.read_text(encoding="utf-8"):
            if arguments.check:
                sys.exit(f"{page} is stale; run python bench/readme_table.py")
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
