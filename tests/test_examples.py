"""The examples in the docstrings of bnkit run on NumPy's backend and print what they show."""

import doctest
import importlib

import numpy as np
import pytest
from places import ROOT

import bnkit

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FILES = sorted(path for path in (ROOT / "bnkit").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def examples() -> list[doctest.DocTest]:
    """Every docstring with an example. `bnkit` and `np` are imported for it, as in NumPy's documentation."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found += finder.find(importlib.import_module(name), extraglobs={"bnkit": bnkit, "np": np})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_example_of_a_docstring_prints_what_it_shows(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # an example may write a file
    monkeypatch.setenv("BNKIT_BACKEND", "numpy")
    output: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=output.append)
    assert not output, "".join(output)


@pytest.mark.parametrize("name", ["EarlyStopping", "backend_of", "backends", "fit", "get_backend", "use_backend"])
def test_the_docstring_of_a_public_name_has_an_example(name):
    assert ">>> " in getattr(bnkit, name).__doc__
