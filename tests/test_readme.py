import re
import subprocess
import sys

from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_every_file_that_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
