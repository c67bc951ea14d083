"""Writes README's table of speed, between its two marker comments, from a file that `bnkit bench --json` wrote.

    python bench/readme_table.py [--check] [--results FILE] [--readme FILE]

Without --results, the newest of bench/results/ that is of NumPy's backend. --check writes nothing, and fails where
README is stale.
"""

import argparse
import json
import statistics
import sys
import textwrap
from pathlib import Path

from bnkit.lab.benchmark import measure

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- bench: made by bench/readme_table.py -->", "<!-- /bench -->"
OPS = ("train", "backward")


def newest_results():
    """Of the files named <device>-<year>-<month>-<day>.json, the one of the last day; a GPU's has other peers."""
    found = sorted((ROOT / "bench" / "results").glob("*.json"), key=lambda path: path.stem[-10:])
    found = [path for path in found if json.loads(path.read_text(encoding="utf-8"))["machine"]["backend"] == "numpy"]
    if not found:
        sys.exit("bench/results must hold a file; run bnkit bench --json bench/results/<device>-<date>.json")
    return found[-1]


def table(results, link):
    """Markdown: what was measured where, a line a case, and the means over all cases."""
    measured = {}
    for row in results["records"]:
        if row["through"] == "function" and row["dtype"] == "float32" and row["op"] in OPS:
            measured.setdefault(row["case"], {})[row["op"]] = row
    measured = {case: rows for case, rows in measured.items() if len(rows) == len(OPS)}
    if not measured:
        sys.exit(f"the results must hold float32 rows of {' and '.join(OPS)}, got none")
    peers = list(results["settings"]["against"])
    resnet = {case.name for case in measure.cases() if case.shape[0] == 50}
    lines = [
        "| float32 | ms | share of copy | " + "".join(f"{peer} | " for peer in peers),
        "|---" * (3 + len(peers)) + "|",
    ]
    for case, rows in measured.items():
        if case not in resnet:
            cells = [_pair(rows, lambda row: f"{row['median_us'] / 1e3:.3g}")]
            cells.append(_pair(rows, lambda row: f"{row['share']:.0%}"))
            cells += [_pair(rows, lambda row, peer=peer: _times(row, peer)) for peer in peers]
            lines.append(f"| {case} | " + " | ".join(cells) + " |")
    for name, choose in {"geometric mean": statistics.geometric_mean, "worst": min}.items():
        cells = [_over_all(measured, peer, choose) for peer in peers]
        lines.append(f"| {name} of all {len(measured)} cases | | | " + " | ".join(cells) + " |")
    introduction = textwrap.wrap(_introduction(results, peers, link), 120, break_on_hyphens=False)
    return "\n".join([*introduction, "", *(line.rstrip() for line in lines)])


def _introduction(results, peers, link):
    machine, versions = results["machine"], results["versions"]
    names = ", ".join(f"{name} {version}" for name, version in versions.items() if name in ("numpy", *peers))
    return (
        f"Training forward / backward on {machine['processor']}, {machine['threads']} threads, {machine['simd']}, with "
        f"{names}: the median time of a call, its one-read bytes a second as a share of this machine's copy bandwidth "
        f"({machine['copy_gb_per_s']:.0f} GB/s), and the time of each other implementation, the fastest of its ways, "
        f"over bnkit's. All rows are in [{link}]({link}), made by `{results['settings']['command']}`."
    )


def _pair(rows, text):
    return " / ".join(text(rows[op]) for op in OPS)


def _times(row, peer):
    ratio = row["peers"][peer].get("ratio")
    return "–" if ratio is None else _ratio(ratio)


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def _over_all(measured, peer, choose):
    """Of the ratios of each op; a dash where there is none."""
    cells = []
    for op in OPS:
        found = [rows[op]["peers"][peer].get("ratio") for rows in measured.values()]
        found = [ratio for ratio in found if ratio is not None]
        cells.append(_ratio(choose(found)) if found else "–")
    return " / ".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where README is stale")
    parser.add_argument("--results", type=Path, help="the file of bnkit bench; else the newest of bench/results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args()
    path = (arguments.results or newest_results()).resolve()
    link = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    text = arguments.readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{arguments.readme} must hold the lines {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = table(json.loads(path.read_text(encoding="utf-8")), link)
    wanted = f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"
    if arguments.check:
        if text != wanted:
            sys.exit(f"{arguments.readme} is stale; run python bench/readme_table.py")
    elif text != wanted:
        arguments.readme.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
