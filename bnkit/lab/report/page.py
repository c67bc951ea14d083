"""The whole page: an introduction, a summary of the claims, and a section for each experiment."""

import datetime
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from bnkit.data.dataset import import_extra
from bnkit.lab.experiments.axes import number
from bnkit.lab.experiments.judging import TOO_SHORT
from bnkit.lab.experiments.series import PreparedChart, prepare
from bnkit.lab.report import charts, palette
from bnkit.lab.report.gather import Experiment
from bnkit.lab.report.script_data import script_data
from bnkit.lab.report.tables import Layout, layout

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TITLE = "bnkit report: "
_HEAD = 1000  # bytes: the page's title is within them
# A verdict's mark and CSS class.
_BADGES = {
    "holds": ("✓", "holds"),
    "does not hold": ("✗", "fails"),
    "depends": ("≈", "depends"),
    TOO_SHORT: ("–", "short"),
}


@dataclass(frozen=True)
class Section:
    """An experiment as the template shows it; `name` is its id, and starts the ids inside it."""

    name: str
    title: str
    experiment: Experiment
    charts: list[PreparedChart]
    tables: list[Layout]


def page(experiments: Sequence[Experiment], *, date: datetime.date) -> str:
    """One HTML file that needs no other file and no network.

    Without its script it shows everything but the values of single points. `date` is the day that the page names.
    ImportError if Jinja2 is missing; ValueError if a chart has an unknown style.

    >>> page([], date=datetime.date(2026, 11, 30)).splitlines()[0]
    '<!DOCTYPE html>'
    """
    sections = [
        Section(name, title, e, [prepare(c) for c in e.findings.charts], [layout(t) for t in e.findings.tables])
        for name, title, e in zip(_ids(experiments), _titles(experiments), experiments, strict=True)
    ]
    title = _TITLE + ", ".join(dict.fromkeys(e.name for e in experiments))
    return _environment().get_template("page.html").render(title=title, sections=sections, date=date)


def is_page(path: Path) -> bool:
    """Whether `page` made this file: whether it has the page's title."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f"<title>{_TITLE}".encode() in file.read(_HEAD)


def _environment() -> "Environment":
    """Templates that escape whatever they insert, and fail on a name that does not exist."""
    import_extra("jinja2", "the report")
    import jinja2
    from markupsafe import Markup

    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _file(f"templates/{name}")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    env.filters |= {"fact": _fact, "number": number, "prose": _prose, "plain": lambda text: text.replace("`", "")}
    env.globals |= {
        "badges": _BADGES,
        "charts": charts,
        "palette": palette,
        "script": Markup(_file("script.js")),
        "style": Markup(palette.css() + "\n" + _file("style.css")),
        "script_data": script_data,
        "too_short": TOO_SHORT,
    }
    return env


def _file(name: str) -> str:
    return resources.files("bnkit.lab.report").joinpath(name).read_text(encoding="utf-8")


def _prose(text: str) -> "Markup":
    """The text as HTML, with the text between two backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _fact(value: object) -> str:
    """A value of JSON in one line of text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value, digits=6)
    if isinstance(value, list):
        if len(value) > 6 and all(isinstance(v, (int, float)) for v in value):
            return f"{_fact(value[0])} … {_fact(value[-1])} ({len(value)})"
        return ", ".join(" ".join(map(_fact, v)) if isinstance(v, list) else _fact(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(v)}" for key, v in value.items())
    return "none" if value is None else str(value)


def _titles(experiments: Sequence[Experiment]) -> list[str]:
    """The experiments' names, with the file's name where two are equal, and a remark if a run is short."""
    count = Counter(e.name for e in experiments)
    titles = []
    for e in experiments:
        remarks = [e.file.removesuffix(".json")] if count[e.name] > 1 else []
        remarks += ["short run"] if e.findings.too_short else []
        titles.append(f"{e.name} ({', '.join(remarks)})" if remarks else e.name)
    return titles


def _ids(experiments: Sequence[Experiment]) -> list[str]:
    """The experiments' names, numbered where two are equal."""
    names = [e.name for e in experiments]
    return [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, 1)]
