"""The documents say what is true: their code runs, their links and paths lead to files, their names exist."""

import importlib
import re
import subprocess
import sys

import pytest
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = ("bnkit", "backends", "bench", "docs", "tests", ".ci", ".github")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))],
)
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # a changelog names files that were


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def heading_anchors(text):
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def inline_code(path):
    """The code spans of a document, outside its code blocks."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def test_the_example_runs_as_it_stands(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "digits.npz").exists()
    accuracy, *_ = result.stdout.split()
    assert float(accuracy) > 0.9  # the network reaches about 0.97 on the digits


def test_the_two_commands_stand_in_lines_of_their_own():
    lines = [line.strip() for line in README.splitlines()]
    assert "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/bnkit run weight-scale" in lines
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest" in lines


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_of_a_document_leads_to_a_file_and_a_heading(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        linked = document.parent / file if file else document
        assert linked.exists(), target
        if anchor:
            assert anchor in heading_anchors(linked.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("document", CURRENT, ids=name_of)
def test_every_path_that_a_document_names_exists(document):
    for code in inline_code(document):
        for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*", code):
            if not re.search(r"\b[A-Z]+\b(?!\.md)", path) and "<" not in code:  # NAME and <device> are placeholders
                assert any(ROOT.glob(path.rstrip("./"))), f"{path} in `{code}`"


@pytest.mark.parametrize("document", CURRENT, ids=name_of)
def test_every_name_of_bnkit_in_a_document_exists(document):
    for code in inline_code(document):
        for name in re.findall(r"(?<![\w./\"-])bnkit(?:\.[A-Za-z]\w*)+", code):
            found = importlib.import_module("bnkit")
            for part in name.split(".")[1:]:
                if not hasattr(found, part):
                    importlib.import_module(f"{found.__name__}.{part}")
                found = getattr(found, part)


def test_contributing_names_every_session_of_nox():
    sessions = re.findall(r"@nox\.session.*?\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    named = re.findall(r"nox -s (\w+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert sorted(sessions) == sorted(set(named))
