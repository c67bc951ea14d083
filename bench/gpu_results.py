"""Merges the files that the steps of bench/gpu.sh left in FOLDER into one file, FOLDER/gpu.json.

    python bench/gpu_results.py FOLDER NAME=OUTCOME …

The file has the form of `bnkit bench --json` and also "steps", the outcome of each step. Each record also has its step
and the copy bandwidth of that run, which its shares refer to.
"""

import json
import sys
from pathlib import Path


def merged(parts, steps):
    """Merge the contents of all steps. A setting that cannot be merged is that of the first step."""
    whole = {"settings": {}, "versions": {}, "machine": {}, "steps": steps, "records": []}
    commands, bandwidths, against, cases = [], {}, [], []
    for name, part in parts.items():
        whole["settings"] = whole["settings"] or part["settings"]
        whole["machine"] = whole["machine"] or part["machine"]
        whole["versions"] |= part["versions"]
        commands.append(part["settings"]["command"])
        against += [peer for peer in part["settings"]["against"] if peer not in against]
        cases += [case for case in part["settings"]["cases"] if case not in cases]
        bandwidths[name] = part["machine"]["copy_gb_per_s"]
        whole["records"] += [{**row, "step": name, "copy_gb_per_s": bandwidths[name]} for row in part["records"]]
    whole["settings"] = whole["settings"] | {"command": "; ".join(commands), "against": against, "cases": cases}
    return whole


def main():
    folder = Path(sys.argv[1])
    steps = dict(argument.split("=", 1) for argument in sys.argv[2:])
    files = {name: folder / f"{name}.json" for name in steps}
    parts = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.exists()}
    path = folder / "gpu.json"
    whole = merged(parts, steps)
    rows = ",\n".join(map(json.dumps, whole.pop("records")))
    head = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in whole.items())
    path.write_text(f'{{\n{head},\n"records": [\n{rows}\n]\n}}\n', encoding="utf-8")
    print(f"wrote {path}: {len(rows.splitlines())} rows of {', '.join(parts) or 'no step'}")


if __name__ == "__main__":
    main()
