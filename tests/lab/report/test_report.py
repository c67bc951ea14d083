"""The report's page: its content, and that it fetches nothing and escapes all text."""

import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import report_samples as samples
from report_samples import page

from bnkit.lab.experiments import styles
from bnkit.lab.experiments.findings import Findings, Line, Panel, Row, Table
from bnkit.lab.report import palette


class Reader(HTMLParser):
    """The elements as (name, attributes), and the text of each as `texts`; every element must be closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        assert len({key for key, _ in attributes}) == len(attributes), f"{name} has an attribute twice"
        self.elements.append((name, dict(attributes)))
        if name != "meta":
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if not {"script", "style"} & set(self.open):
            self.texts.append(text)


@pytest.fixture(scope="module")
def full():
    return page(samples.full())


def words(text):
    return " ".join(" ".join(Reader(text).texts).split())


def svgs(text):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)]


def test_five_experiments_in_full_size_take_less_than_two_megabytes(full):
    assert len(full.encode()) < 2e6


def test_every_element_is_closed_and_every_id_is_there_once(full):
    ids = [attributes["id"] for _, attributes in Reader(full).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"weight-scale", "learning-rate", "overfitting", "activations", "batch-size"} <= set(ids)


def test_every_link_leads_to_an_id_of_the_page(full):
    elements = Reader(full).elements
    ids = {attributes.get("id") for _, attributes in elements}
    links = [attributes["href"] for _, attributes in elements if "href" in attributes]
    assert len(links) == 10
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_nothing_is_fetched(full):
    assert "://" not in full
    assert "@import" not in full
    assert "url(" not in full
    assert not [name for name, attributes in Reader(full).elements if "src" in attributes or name == "link"]
    policy = next(a["content"] for _, a in Reader(full).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_every_figure_says_in_words_what_it_shows(full):
    drawings = [svg for svg in svgs(full) if svg.get("role") == "img"]
    assert len(drawings) == 16 + 12 + 2 + 1 + 60 + 3
    assert all(svg.get("aria-label").strip() for svg in drawings)
    assert (
        drawings[0].get("aria-label").startswith("W = 1: accuracy on the training images against epoch. plain starts")
    )


def test_every_experiment_shows_question_settings_machine_versions_and_verdict(full):
    text = words(full)
    for experiment in samples.full():
        assert experiment.findings.question in text
        for verdict in experiment.findings.verdicts:
            for part in (verdict.claim, verdict.reason, verdict.rule, verdict.verdict):
                assert part in text
            assert text.count(verdict.claim) >= 2, "in the summary and with its experiment"
    for fact in ("seeds 3", "hidden 100, 100, 100, 100, 100", "scales 1 … 0.0001 (16)"):
        assert fact in text
    for fact in ("processor AMD EPYC", "numpy 2.4.6", "quick no", "eps 10⁻⁶"):
        assert text.count(fact) == 5


def test_a_table_has_every_published_and_measured_figure():
    rows = (
        Row(("0.05", "1"), "plain", 0.098, 0.1012, 0.0981, 0.1135),
        Row(("0.05", "1"), "batch norm", 0.9834, 0.98, 0.979, 0.9805),
        Row(("5", "1"), "plain", None, 0.5, 0.5, 0.5, "1 of 3 diverged"),
    )
    table = Table("accuracy", ("W std", "lr"), rows, "a lesson", 0.001)
    text = words(page([samples.experiment("weight-scale", Findings("?", (), (table,), ()))]))
    for figure in ("0.0980", "0.1012", "0.0981 to 0.1135", "0.9834", "0.9800", "0.9790 to 0.9805", "0.5000"):
        assert figure in text
    assert "plain: 1 of 3 diverged" in text
    assert "Published: a lesson" in text
    assert "0.0500" not in text, "what is set is shown as it was given"


def test_a_published_figure_outside_the_range_and_the_tolerance_is_marked():
    def marks(published):
        table = Table("accuracy", ("W",), (Row(("1",), "plain", published, 0.5, 0.4, 0.6),), "a lesson", 0.01)
        return page([samples.experiment("weight-scale", Findings("?", (), (table,), ()))]).count("≠")

    assert marks(0.6099) == 0
    assert marks(0.3) == 2, "at the figure, and where the mark is explained"


def test_figures_of_many_sizes_keep_their_digits(full):
    text = words(full)
    assert "18,750" in text
    assert "6.985·10⁻⁵" in text


def test_a_table_without_published_figures_has_no_column_for_them():
    table = Table("noise", ("B",), (Row(("2",), "noise", None, 0.5, 0.4, 0.6),), "", 0.0)
    text = page([samples.experiment("batch-size", Findings("?", (), (table,), ()))])
    shown = text.partition('class="numbers"')[2].partition("</section>")[0]
    assert "measured" in shown
    assert "published" not in shown.lower()


def test_every_line_of_a_table_has_as_many_columns_as_its_head():
    rows = (
        Row(("1", "a"), "plain", 0.5, 0.5, 0.4, 0.6, "a note"),
        Row(("1", "a"), "batch norm", None, 0.5, 0.4, 0.6),
        Row(("2", "a"), "batch norm", None, 0.5, 0.4, 0.6),
        Row(("3", "a"), "plain", None, 0.5, 0.4, 0.6),
    )
    table = Table("t", ("W", "act"), rows, "a lesson", 0.0)
    text = page([samples.experiment("batch-size", Findings("?", (), (table,), ()))])
    lines = re.findall(r"<tr>.*?</tr>", text.partition('class="scroll"')[2], flags=re.DOTALL)
    assert [len(re.findall("<t[hd]", line)) for line in lines] == [5, 5, 5, 5]
    assert [line.count('class="published"') for line in lines] == [0, 1, 1, 1], "of the kind with published figures"


def test_a_setting_of_lists_is_one_line_of_text():
    made = samples.experiment("batch-size", settings={"cells": [[0.05, 1, "relu"], [5, 2, "relu"]], "none": None})
    text = words(page([made]))
    assert "cells 0.05 1 relu, 5 2 relu" in text
    assert "none" not in text


def test_no_text_is_taken_for_markup():
    bad = samples.HOSTILE
    runs = {bad: (0.0, 1.0), "other": (1.0, 0.0)}
    chart = samples.Chart(bad, bad, bad, (Panel(bad, (Line(bad, "plain", (1, 2), runs),), bad),))
    table = Table(bad, (bad,), (Row((bad,), bad, 1.0, 3.0, 2.0, 4.0, bad),), bad, 0.1)
    verdict = samples.Verdict(bad, "holds", bad, bad)
    made = samples.experiment("weight-scale", Findings(bad, (chart,), (table,), (verdict,)), settings={bad: bad})
    text = page([made])
    reader = Reader(text)
    assert not [name for name, _ in reader.elements if name == "img"]
    assert reader.texts.count(bad) > 10
    assert [name for name, _ in reader.elements].count("script") == 2, "the chart's data and the page's script"
    assert bad in next(svg for svg in svgs(text) if svg.get("role")).get("aria-label")


def test_two_files_of_one_experiment_have_distinct_titles():
    made = [
        samples.experiment("weight-scale", samples.weight_scale(panels=1), file=f"{n}.json") for n in ("one", "two")
    ]
    text = page(made)
    ids = [attributes["id"] for _, attributes in Reader(text).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"weight-scale (one)", "weight-scale (two)"} <= set(Reader(text).texts)


def test_the_page_is_the_same_each_time():
    assert page(samples.full()) == page(samples.full())


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_what_is_behind_them(theme):
    colours = {name: pair[theme] for name, pair in palette.COLOURS.items()}
    for name in ("text", "muted", "accent", "holds", "fails", "depends"):
        for background in ("card", "page"):
            assert styles.contrast(colours[name], colours[background]) >= 4.5, name  # WCAG 2.2, 1.4.3, for text
    for name, colour in palette.series(theme).items():
        assert styles.contrast(colour, colours["card"]) >= 3, name  # WCAG 2.2, 1.4.11, for graphics


def test_the_introduction_explains_the_terms_and_names_the_tutorial_and_the_date(full):
    text = words(full)
    for part in ("Deep Learning from Scratch", "without batch norm", "standard deviation", "30 November 2026"):
        assert part in text
    assert [a["datetime"] for name, a in Reader(full).elements if name == "time"] == ["2026-11-30"]


def test_the_verdicts_follow_the_question_and_settings_are_folded_away(full):
    section = full.partition('id="weight-scale"')[2]
    places = [section.index(part) for part in ('class="question"', 'class="verdict"', "<details", "<figure")]
    assert places == sorted(places)
    assert not [attributes for name, attributes in Reader(full).elements if name == "details" and "open" in attributes]


def test_text_between_backticks_is_code():
    row = Row(("1",), "plain", None, 0.5, 0.5, 0.5, "run `bnkit <run>` again")
    text = page([samples.experiment("weight-scale", Findings("?", (), (Table("t", ("W",), (row,), "", 0.0),), ()))])
    assert "run <code>bnkit &lt;run&gt;</code> again" in text


def test_panels_named_by_row_and_column_are_a_grid(full):
    activations = full.partition('id="activations-figure-1"')[2].partition("</figure>")[0]
    labels = re.findall(r'<span class="(?:head|row)">(.*?)</span>', activations)
    assert labels == [*(f"layer {i}" for i in range(1, 6)), "1", "0.01", "Xavier", "He"]
    assert activations.count('class="panel"') == 20
    assert "scaled to each panel" in activations


def test_without_jinja2_the_report_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"the report needs jinja2 .*; in a clone of the repository, run pip install"):
        page([])


def test_an_unknown_style_is_refused():
    chart = samples.Chart("c", "x", "y", (Panel("p", (Line("a", "plane", (1,), {"0": (1,)}),)),))
    with pytest.raises(ValueError, match=r"style must be one of batch norm, plain, .*, got 'plane'"):
        page([samples.experiment("weight-scale", Findings("?", (chart,), (), ()))])


def test_a_label_with_two_styles_stands_twice_in_the_legend():
    lines = tuple(Line("a", style, (1,), {"0": (1,)}) for style in ("plain", "third", "plain"))
    chart = samples.Chart("c", "x", "y", (Panel("p", lines),))
    text = page([samples.experiment("weight-scale", Findings("?", (chart,), (), ()))])
    found = [(name, a["data-series"]) for name, a in Reader(text).elements if "data-series" in a]
    assert found == [("button", "0"), ("button", "1"), ("g", "0"), ("g", "1"), ("g", "0")]
