"""Whether a run is long enough for a verdict: by its seeds, epochs and rows, in every experiment."""

import dataclasses
import json

import pytest
import report_samples as samples
from places import DOCS
from rich.console import Console

from bnkit.cli.findings_text import print_findings
from bnkit.lab import experiments
from bnkit.lab.experiments import batch_size, records, weight_scale
from bnkit.lab.experiments.judging import TOO_SHORT, too_short


@pytest.fixture(scope="module", params=experiments.QUESTIONS)
def published(request):
    """An experiment, and the settings and records of its published run."""
    experiment = experiments.load(request.param)
    path = DOCS / f"{experiments.file_stem(request.param)}.json"
    return experiment, records.read_settings(path, experiment.settings), json.loads(path.read_text())["records"]


def test_the_published_run_of_every_experiment_has_verdicts(published):
    experiment, settings, found = published
    shown = experiment.findings(found, settings)
    assert shown.too_short == ""
    assert shown.verdicts
    assert {v.verdict for v in shown.verdicts} <= {"holds", "depends", "does not hold"}


@pytest.mark.parametrize("changes", [{"seeds": 2}, {"epochs": 1}])
def test_a_short_run_of_every_experiment_has_numbers_and_rules_but_no_verdict(published, changes):
    experiment, settings, found = published
    whole, short = (experiment.findings(found, s) for s in (settings, dataclasses.replace(settings, **changes)))
    assert {v.verdict for v in short.verdicts} == {TOO_SHORT}
    assert [v.rule for v in short.verdicts] == [v.rule for v in whole.verdicts]
    assert [v.reason for v in short.verdicts] == [v.reason for v in whole.verdicts]
    assert short.too_short.startswith("A verdict needs at least ")


@pytest.mark.parametrize("name", experiments.QUESTIONS)
def test_the_quick_settings_of_every_experiment_are_too_short(name):
    experiment = experiments.load(name)
    assert too_short(experiment.quick(experiment.settings()))


def test_what_a_short_run_lacks_is_named_with_its_numbers():
    assert too_short(weight_scale.Settings(seeds=2)) == "A verdict needs at least 3 seeds (this run has 2)."
    assert too_short(batch_size.Settings(seeds=1, epochs=4, rows=1000)) == (
        "A verdict needs at least 3 seeds (this run has 1) and at least 5 epochs (this run has 4) and at least 5,000 "
        "rows (this run has 1,000)."
    )


def test_a_run_that_is_longer_than_the_published_one_can_be_judged():
    assert too_short(weight_scale.Settings(data="mnist", seeds=16, epochs=21, rows=2000)) == ""


@pytest.fixture
def short():
    verdict = samples.Verdict("Batch norm is fast", TOO_SHORT, "by a stopwatch", "2 s")
    return samples.Findings("Is it?", (), (), (verdict,), "A verdict needs at least 3 seeds (this run has 1).")


def test_the_terminal_says_that_a_run_is_too_short_and_why(short, capsys):
    print_findings(Console(width=120), short)
    said = capsys.readouterr().out
    assert "Too short to judge. A verdict needs at least 3 seeds (this run has 1)." in said
    assert "Batch norm is fast: too short to judge" in said
    assert "2 s\nRule: by a stopwatch" in said


def test_the_page_says_that_a_run_is_too_short_and_why(short):
    text = samples.page([samples.experiment("weight-scale", short, file="weight_scale_quick.json")])
    assert ">weight-scale (short run)</h2>" in text
    assert "weight_scale_quick.json is too short to judge.</strong> A verdict needs at least 3 seeds" in text
    assert text.count('class="badge short"') == 2, "in the summary and with the claim"
    assert "by a stopwatch" in text


def test_the_page_has_no_such_remark_where_a_run_can_be_judged():
    text = samples.page([samples.experiment("weight-scale")])
    assert TOO_SHORT not in text
    assert "short run" not in text
