"""The whole page: a summary of the claims, then each experiment."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bnkit.lab.experiments.axes import number
from bnkit.lab.experiments.judging import TOO_SHORT
from bnkit.lab.report import charts, palette, tables
from bnkit.lab.report.gather import Experiment
from bnkit.lab.report.markup import Markup, tag

# Nothing is fetched, and nothing could be: the page's own style and script are all that may run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_TITLE = "bnkit report: "
_HEAD = 1000  # bytes of a page, more than stand before its title


def page(experiments: Sequence[Experiment]) -> str:
    """HTML that needs no other file; without its script it still shows everything but the values of single points."""
    titles = _titles(experiments)
    names = _ids(experiments)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{_TITLE}{', '.join(dict.fromkeys(e.name for e in experiments))}"),
        tag("style", Markup(palette.css() + "\n" + _file("style.css"))),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", "What batch norm does, measured"),
            tag("button", "Dark", type="button", id="theme", hidden=True),
        ),
        tag(
            "main",
            tag(
                "section",
                tag("h2", "Claims and verdicts", id="summary-title"),
                tables.summary((i, t, e.findings.verdicts) for i, t, e in zip(names, titles, experiments, strict=True)),
                class_="card",
                aria_labelledby="summary-title",
            ),
            *(_experiment(*each) for each in zip(names, titles, experiments, strict=True)),
        ),
        tag("footer", f"Made by bnkit report from {', '.join(e.file for e in experiments)}."),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", Markup(_file("script.js"))),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def is_page(path: Path) -> bool:
    """Whether `page` made this file: its title says so."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f"<title>{_TITLE}".encode() in file.read(_HEAD)


def _experiment(name: str, title: str, experiment: Experiment) -> Markup:
    findings = experiment.findings
    return tag(
        "section",
        tag("h2", title, id=f"{name}-title"),
        tag("p", findings.question, class_="question"),
        _too_short(experiment),
        _facts("Settings", experiment.settings),
        *(charts.figure(chart, f"{name}-figure-{i}") for i, chart in enumerate(findings.charts, 1)),
        *(tables.side_by_side(table) for table in findings.tables),
        tables.verdicts(findings.verdicts, name),
        _facts("Machine", experiment.machine),
        _facts("Versions", experiment.versions),
        class_="card",
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _too_short(experiment: Experiment) -> Markup | None:
    why = experiment.findings.too_short
    return tag("p", tag("strong", f"{experiment.file} is {TOO_SHORT}."), " ", why) if why else None


def _facts(title: str, facts: Mapping[str, Any]) -> Markup:
    """Name and value of each; what was not set is left out."""
    pairs = [
        tag("div", tag("dt", key.replace("_", " ")), tag("dd", _value(value)))
        for key, value in facts.items()
        if value is not None
    ]
    return tag("div", tag("h3", title), tag("dl", *pairs), class_="facts")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value, digits=6)
    if isinstance(value, list):
        if len(value) > 6 and all(isinstance(v, (int, float)) for v in value):
            return f"{_value(value[0])} … {_value(value[-1])} ({len(value)})"
        inner = [" ".join(map(_value, v)) if isinstance(v, list) else _value(v) for v in value]
        return ", ".join(inner)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(v)}" for key, v in value.items())
    return "none" if value is None else str(value)


def _titles(experiments: Sequence[Experiment]) -> list[str]:
    """The experiments' names; with the file's where two are of one experiment, and a remark where a run is short."""
    count = Counter(e.name for e in experiments)
    titles = []
    for e in experiments:
        remarks = [e.file.removesuffix(".json")] if count[e.name] > 1 else []
        remarks += ["short run"] if e.findings.too_short else []
        titles.append(f"{e.name} ({', '.join(remarks)})" if remarks else e.name)
    return titles


def _ids(experiments: Sequence[Experiment]) -> list[str]:
    """The experiments' names; numbered where two are alike."""
    names = [e.name for e in experiments]
    return [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, 1)]


def _file(name: str) -> str:
    return resources.files("bnkit.lab.report").joinpath(name).read_text(encoding="utf-8")
