"""What an experiment found, as text: measured beside published, and the verdicts."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnkit.lab.experiments import findings


def print_findings(console: Console, found: findings.Findings) -> None:
    for table in found.tables:
        console.print(_table(table))
        if any(row.published is not None for row in table.rows):
            text = f"published: {table.source}; * outside the runs' range by more than {table.tolerance:g}"
            console.print(text, markup=False, highlight=False)
    if found.too_short:
        console.print(f"\nToo short to judge. {found.too_short}", markup=False, highlight=False, style="bold")
    for verdict in found.verdicts:
        console.print(f"\n{verdict.claim}: {verdict.verdict}", markup=False, highlight=False, style="bold")
        console.print(f"{verdict.reason}\nRule: {verdict.rule}", markup=False, highlight=False)


def _table(table: findings.Table) -> Table:
    """A line for each setting, and the kinds side by side: measured, and published where there is such a figure."""
    kinds = list(dict.fromkeys(row.kind for row in table.rows))
    published = {kind: any(r.published is not None for r in table.rows if r.kind == kind) for kind in kinds}
    columns = [c for kind in kinds for c in ((kind, "published") if published[kind] else (kind,))]
    shown = Table(*map(escape, (*table.setting, *columns)), title=escape(table.title))
    for setting in dict.fromkeys(row.setting for row in table.rows):
        rows = {row.kind: row for row in table.rows if row.setting == setting}
        cells: list[str] = []
        for kind in kinds:
            cells.append(_measured(rows[kind], table.decimals) if kind in rows else "")
            if published[kind]:
                cells.append(_published(rows[kind], table) if kind in rows else "")
        shown.add_row(*map(escape, (*setting, *cells)))
    return shown


def _measured(row: findings.Row, decimals: int | None) -> str:
    mean, low, high = (_figure(value, decimals) for value in (row.mean, row.low, row.high))
    text = mean if row.low == row.high else f"{mean} ({low} to {high})"
    return f"{text} {row.note}" if row.note else text


def _published(row: findings.Row, table: findings.Table) -> str:
    if row.published is None:
        return ""
    figure = _figure(row.published, table.decimals)
    return figure if row.agrees(table.tolerance) else f"{figure} *"


def _figure(value: float, decimals: int | None) -> str:
    return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
