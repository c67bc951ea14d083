"""Tables of published beside measured figures, verdicts, and the summary of them all."""

from collections.abc import Iterable

from bnkit.lab.experiments.axes import number
from bnkit.lab.experiments.findings import Row, Table, Verdict
from bnkit.lab.experiments.judging import TOO_SHORT
from bnkit.lab.report.markup import Markup, join, tag

_MARKS = {
    "holds": ("✓", "holds"),
    "does not hold": ("✗", "fails"),
    "depends": ("≈", "depends"),
    TOO_SHORT: ("–", "short"),
}


def badge(verdict: Verdict) -> Markup:
    mark, class_ = _MARKS[verdict.verdict]
    return tag("span", tag("span", mark, aria_hidden="true"), " ", verdict.verdict, class_=f"badge {class_}")


def verdicts(found: Iterable[Verdict], name: str) -> Markup:
    """`name` begins their ids: name-verdict-1 and so on, which the summary links to."""
    parts = [
        tag(
            "div",
            tag("p", badge(v), tag("strong", v.claim), class_="claim"),
            tag("p", v.reason),
            tag("p", "Rule: ", v.rule, class_="muted"),
            class_="verdict",
            id=f"{name}-verdict-{i}",
        )
        for i, v in enumerate(found, 1)
    ]
    return join(*parts)


def summary(experiments: Iterable[tuple[str, str, Iterable[Verdict]]]) -> Markup:
    """A row a claim; experiments are (id, title, verdicts)."""
    rows = [
        tag(
            "tr",
            tag("td", badge(v)),
            tag("td", tag("a", v.claim, href=f"#{name}-verdict-{i}")),
            tag("td", tag("a", title, href=f"#{name}")),
        )
        for name, title, found in experiments
        for i, v in enumerate(found, 1)
    ]
    head = tag("tr", *(tag("th", text, scope="col") for text in ("verdict", "claim", "experiment")))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="summary")


def side_by_side(table: Table) -> Markup:
    """A row a setting; for each kind the published figure, if any, and the measured mean and range."""
    kinds = list(dict.fromkeys(row.kind for row in table.rows))
    published = {kind: any(r.published is not None for r in table.rows if r.kind == kind) for kind in kinds}
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in table.rows:
        lines.setdefault(row.setting, {})[row.kind] = row
    notes = any(row.note for row in table.rows)
    decimals = table.decimals

    body = []
    for setting, rows in lines.items():
        cells = [tag("th", text, scope="row", class_="setting") for text in setting]
        for kind in kinds:
            cells += _cells(rows.get(kind), published[kind], table.tolerance, decimals)
        if notes:
            own = [f"{row.kind}: {row.note}" for row in rows.values() if row.note]
            cells.append(tag("td", "; ".join(own), class_="kind words"))
        body.append(tag("tr", *cells))
    grid = tag("table", tag("thead", *_head(table, published, notes)), tag("tbody", *body))
    legend = _legend(table)
    return tag(
        "div",
        tag("h3", table.title),
        tag("div", grid, class_="scroll", role="region", aria_label=table.title, tabindex=0),
        tag("p", legend, class_="muted") if legend else None,
        class_="numbers",
    )


def _head(table: Table, published: dict[str, bool], notes: bool) -> list[Markup]:
    """The kinds, and below them published and measured; the kinds alone where nothing is published."""
    both = any(published.values())
    lines = 2 if both else None
    above = [tag("th", name, scope="col", rowspan=lines, class_="setting") for name in table.setting]
    below = []
    for kind, has in published.items():
        above.append(tag("th", kind, scope="colgroup" if has else "col", colspan=2 if has else None, class_="kind"))
        below += [tag("th", "published", scope="col", class_="kind")] if has else []
        below.append(tag("th", "measured", scope="col", class_=None if has else "kind"))
    if notes:
        above.append(tag("th", "note", scope="col", rowspan=lines, class_="kind words"))
    return [tag("tr", *above)] + ([tag("tr", *below)] if both else [])


def _legend(table: Table) -> str:
    parts = [f"Published: {table.source}."] if any(row.published is not None for row in table.rows) else []
    if any(not row.agrees(table.tolerance) for row in table.rows):
        spare = f"more than {number(table.tolerance)} " if table.tolerance else ""
        parts.append(f"≠ marks a published figure {spare}outside the range of the runs.")
    return " ".join(parts)


def _cells(row: Row | None, published: bool, tolerance: float, decimals: int | None) -> list[Markup]:
    if row is None:
        return [tag("td", "–", class_="kind")] + ([tag("td", "–")] if published else [])
    cells = []
    if published:
        cells.append(tag("td", "–" if row.published is None else _figure(row.published, decimals), class_="kind"))
    spread = None
    if row.low != row.high:
        spread = tag("small", f"{_figure(row.low, decimals)} to {_figure(row.high, decimals)}")
    differs = None if row.agrees(tolerance) else tag("abbr", "≠", title="outside the runs' range")
    mean = tag("span", _figure(row.mean, decimals), differs)
    cells.append(tag("td", mean, spread, class_=None if published else "kind"))
    return cells


def _figure(value: float, decimals: int | None) -> str:
    return number(value) if decimals is None else f"{value:.{decimals}f}".replace("-", "−")
