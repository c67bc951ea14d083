"""The speed tables of the documents, which a script makes from the file of a benchmark."""

import json
import subprocess
import sys

import pytest
from places import ROOT

SCRIPT = ROOT / "bench" / "readme_table.py"
MEANS = ("<!-- bench means: made by bench/readme_table.py -->", "<!-- /bench means -->")
MARKERS = ("<!-- bench: made by bench/readme_table.py -->", "<!-- /bench -->")


def row(case, op, median_us, torch, **more):
    found = {"skipped": "why"} if torch is None else {"ratio": torch}
    return {
        "case": case, "op": op, "dtype": "float32", "through": "function", "median_us": median_us, "share": 0.5,
        "peers": {"torch": found},
    } | more  # fmt: skip


RESULTS = {
    "settings": {"against": ["torch"], "command": "bnkit bench --against torch"},
    "versions": {"bnkit": "0", "numpy": "2.4.6", "torch": "2.13.0"},
    "machine": {"processor": "A Processor", "threads": 2, "simd": "v4", "copy_gb_per_s": 31.4},
    "records": [
        row("100x100", "train", 5.0, 4.0),
        row("100x100", "train", 3.0, 9.0, through="op"),
        row("100x100", "train", 3.0, 9.0, dtype="float64"),
        row("100x100", "backward", 6.0, 8.0),
        row("NCHW 50x64x56x56", "train", 2000.0, 1.0),
        row("NCHW 50x64x56x56", "backward", 2000.0, None),
        row("128x1024", "train", 1.0, 1.0),  # without its backward it is left out
    ],
}


@pytest.fixture
def readme(tmp_path):
    """A README with its markers, beside the file of a run."""
    (tmp_path / "results.json").write_text(json.dumps(RESULTS), encoding="utf-8")
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{MARKERS[0]}\n{MARKERS[1]}\n\nafter\n", encoding="utf-8")
    return path


def make(readme, *options):
    files = ["--page", str(readme), "--results", str(readme.parent / "results.json")]
    return subprocess.run([sys.executable, SCRIPT, *files, *options], capture_output=True, text=True)


def test_the_table_stands_between_the_markers_with_machine_versions_and_command(readme):
    assert make(readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{MARKERS[0]}\n\nTraining forward / backward on A Processor, 2 threads, v4")
    assert text.endswith(f"\n\n{MARKERS[1]}\n\nafter\n")
    said = " ".join(text.split())
    for part in (
        "numpy 2.4.6, torch 2.13.0",
        "31 GB/s",
        "`bnkit bench --against torch`",
        "[results.json](results.json)",
    ):
        assert part in said
    assert max(map(len, text.splitlines())) <= 120


def test_the_table_has_a_line_for_each_case_but_resnets_and_the_means_of_all(readme):
    make(readme)
    lines = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert lines[1:] == [
        "| 100x100 | 0.005 / 0.006 | 50% / 50% | 4× / 8× |",
        "| geometric mean of all 2 cases | | | 2× / 8× |",
        "| worst of all 2 cases | | | 1× / 8× |",
    ]


def test_the_means_alone_stand_between_their_own_markers(readme):
    readme.write_text(f"before\n\n{MEANS[0]}\n{MEANS[1]}\n\nafter\n", encoding="utf-8")
    assert make(readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{MEANS[0]}\n\nThe time of other implementations over bnkit's")
    assert [line for line in text.splitlines() if line.startswith("| ")] == [
        "| float32 | torch |",
        "| geometric mean of all 2 cases | 2× / 8× |",
        "| worst of all 2 cases | 1× / 8× |",
    ]
    assert make(readme, "--check").returncode == 0


def test_a_link_leads_from_the_folder_of_the_page(readme):
    page = readme.parent / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, SCRIPT, "--page", page, "--results", readme.parent / "results.json"]
    subprocess.run(command, check=True)
    assert "(../results.json)" in page.read_text(encoding="utf-8")


def test_check_passes_on_a_fresh_readme_and_fails_on_a_stale_one(readme):
    assert make(readme, "--check").returncode == 1
    before = readme.read_text(encoding="utf-8")
    assert MARKERS[0] + "\n" + MARKERS[1] in before, "a check writes nothing"
    make(readme)
    assert make(readme, "--check").returncode == 0
    readme.write_text(readme.read_text(encoding="utf-8").replace("0.005", "0.004"), encoding="utf-8")
    stale = make(readme, "--check")
    assert stale.returncode == 1
    assert "is stale; run python bench/readme_table.py" in stale.stderr


def test_a_second_writing_changes_nothing(readme):
    make(readme)
    once = readme.read_text(encoding="utf-8")
    make(readme)
    assert readme.read_text(encoding="utf-8") == once


def test_a_page_without_its_markers_is_refused(readme):
    for text, remedy in {"no markers": "must hold the markers", f"{MARKERS[0]} and no end": "once each"}.items():
        readme.write_text(text, encoding="utf-8")
        result = make(readme)
        assert result.returncode == 1
        assert remedy in result.stderr
        assert readme.read_text(encoding="utf-8") == text


def test_the_documents_have_the_tables_of_the_newest_results():
    if not list((ROOT / "bench" / "results").glob("*.json")):
        pytest.skip("bench/results holds no file yet")
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
