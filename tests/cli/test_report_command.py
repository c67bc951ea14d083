"""`bnkit report`: the files it takes, the page it leaves, and what it says of those it cannot take."""

import errno
import os
import re

import pytest
import report_samples as samples
from places import DOCS

from bnkit.cli import main
from bnkit.lab import experiments
from bnkit.lab.report import gather


@pytest.fixture
def known(monkeypatch):
    """One experiment is known, "sample"."""
    monkeypatch.setattr(experiments, "QUESTIONS", {"sample": "Is it?"})
    monkeypatch.setattr(experiments, "load", lambda name: {"sample": samples.module()}[name])


def report(capsys, *arguments):
    code = main(["report", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_page_is_written_into_the_folder(known, tmp_path, capsys):
    samples.write_file(tmp_path / "sample-any name.json")
    code, out, err = report(capsys, tmp_path)
    assert (code, err) == (0, "")
    assert f"wrote {tmp_path / 'report.html'}" in out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    assert "W = 0.541" in page
    assert "W = 0.293" not in page, "the file has two records"


def test_out_names_another_file(known, tmp_path, capsys):
    samples.write_file(tmp_path / "sample.json")
    assert report(capsys, tmp_path, "--out", tmp_path / "page.html")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "sample.json"]


def test_files_are_in_the_experiments_order_and_settings_are_as_they_were_set(known, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "QUESTIONS", {"second": "?", "first": "?"})
    monkeypatch.setattr(experiments, "load", lambda name: samples.module())
    for file, name in (("-a", "first"), ("", "second"), ("", "first")):
        samples.write_file(tmp_path / f"{name}{file}.json")
    found, left_out = gather(tmp_path)
    assert [e.file for e in found] == ["second.json", "first.json", "first-a.json"]
    assert found[0].settings == {"data": "mnist", "sizes": [3, 4]}
    assert left_out == {}


def test_what_is_no_experiments_is_left_out_and_named(known, tmp_path, capsys):
    samples.write_file(tmp_path / "sample.json")
    samples.write_file(tmp_path / "bench.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    code, out, _ = report(capsys, tmp_path)
    assert code == 0
    assert "left out bench.json, list.json" in out


def test_a_quick_run_is_shown_where_there_is_no_full_one(known, tmp_path):
    samples.write_file(tmp_path / "sample_quick.json")
    samples.write_file(tmp_path / "sample_quick-laptop.json")
    found, left_out = gather(tmp_path)
    assert [e.file for e in found] == ["sample_quick.json", "sample_quick-laptop.json"]
    assert left_out == {}


@pytest.mark.parametrize("full", ["sample.json", "sample-laptop.json"])
def test_a_quick_run_beside_a_full_one_is_left_out_and_named(known, tmp_path, capsys, full):
    samples.write_file(tmp_path / full)
    samples.write_file(tmp_path / "sample_quick.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    assert [e.file for e in gather(tmp_path)[0]] == [full]
    _, out, _ = report(capsys, tmp_path)
    assert "left out sample_quick.json: a quick run, and the folder holds a full one\n" in out
    assert "left out list.json: not the records of an experiment\n" in out


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    folder = tmp_path / "no"
    code, out, err = report(capsys, folder)
    assert (code, out) == (1, "")
    assert err == f"bnkit: {folder} must be a folder with record files; make them by bnkit run --out {folder}\n"


def test_a_folder_without_record_files_is_one_line(tmp_path, capsys):
    code, _, err = report(capsys, tmp_path)
    assert code == 1
    assert f"{tmp_path} holds no record file of an experiment; make one by bnkit run" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"settings": {"data', "Unterminated"),
        (b"\xff\xfe\x00", "utf-8"),
        (b"[" * 100_000, "recursion"),
        (b'{"records": []}', "no settings"),
        (b'{"settings": 3}', "no settings"),
    ],
    ids=["empty", "cut off", "not text", "too deep", "no parts", "settings of another type"],
)
def test_a_damaged_file_is_named_in_one_line_and_no_page_is_written(known, tmp_path, capsys, content, why):
    samples.write_file(tmp_path / "sample.json")
    (tmp_path / "sample-b.json").write_bytes(content)
    code, _, err = report(capsys, tmp_path)
    assert code == 1
    assert f"{tmp_path / 'sample-b.json'} must be a file that an experiment wrote" in err
    assert why in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": {"data": "mnist"}}, "sizes"),
        ({"settings": {"data": 3, "sizes": [1]}}, "data must be like 'digits', got 3"),
        ({"records": []}, "its records are empty"),
        ({"records": [{"other": 1}]}, "KeyError: 'value'"),
        ({"machine": None}, "no machine"),
    ],
)
def test_a_file_with_other_settings_or_records_is_named(known, tmp_path, changes, why):
    path = samples.write_file(tmp_path / "sample.json", **changes)
    with pytest.raises(ValueError, match=r"sample\.json") as error:
        gather(tmp_path)
    assert why in str(error.value)
    assert str(path) in str(error.value)


def test_an_earlier_page_stays_where_the_new_one_cannot_be_made(known, tmp_path, capsys):
    samples.write_file(tmp_path / "sample.json")
    assert report(capsys, tmp_path)[0] == 0
    earlier = (tmp_path / "report.html").read_bytes()
    (tmp_path / "sample.json").write_text("{")
    assert report(capsys, tmp_path)[0] == 1
    assert (tmp_path / "report.html").read_bytes() == earlier
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "sample.json"]


def test_an_earlier_page_is_replaced(known, tmp_path, capsys):
    for records, panels in (([{"value": 1}], 1), ([{"value": 1}, {"value": 2}], 2)):
        samples.write_file(tmp_path / "sample.json", records=records)
        assert report(capsys, tmp_path)[0] == 0
        assert (tmp_path / "report.html").read_text(encoding="utf-8").count('class="panel"') == panels


@pytest.mark.parametrize("name", ["report.html", "sample.json"])
def test_a_file_that_is_no_page_of_a_report_is_replaced_by_overwrite_alone(known, tmp_path, capsys, name):
    samples.write_file(tmp_path / "sample.json")
    path = tmp_path / name
    if not path.exists():
        path.write_text("<title>my own notes on a bnkit report: </title>")
    before = path.read_bytes()
    assert report(capsys, tmp_path, "--out", path) == (
        2, "", f"bnkit: {path} already exists; --overwrite replaces it, another --out keeps it\n"
    )  # fmt: skip
    assert path.read_bytes() == before
    assert report(capsys, tmp_path, "--out", path, "--overwrite")[0] == 0
    assert path.read_bytes().startswith(b"<!DOCTYPE html>")


def test_a_page_that_cannot_be_written_is_told_with_the_remedy(known, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    samples.write_file(tmp_path / "sample.json")
    monkeypatch.setattr("os.fsync", full)
    assert report(capsys, tmp_path) == (
        1, "", f"bnkit: cannot write {tmp_path / 'report.html'} (No space left on device); name another file by --out\n"
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["sample.json"]


def test_a_missing_folder_for_the_page_is_told(known, tmp_path, capsys):
    samples.write_file(tmp_path / "sample.json")
    code, _, err = report(capsys, tmp_path, "--out", tmp_path / "no" / "page.html")
    assert code == 1
    assert "must lie in an existing folder" in err


def test_the_repositorys_page_is_that_of_its_records(tmp_path, capsys):
    assert report(capsys, DOCS, "--out", tmp_path / "page.html")[0] == 0
    found, left_out = gather(DOCS)
    assert ([e.name for e in found], left_out) == (list(experiments.QUESTIONS), {})
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "page.html", DOCS / "report.html")]
    made, stored = (re.sub("<time.*?</time>", "", page) for page in pages)
    assert made == stored, "run bnkit report docs"
