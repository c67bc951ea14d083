"""A table as the template lays it out: a line for each setting, a cell for each kind."""

from dataclasses import dataclass

from bnkit.lab.experiments.axes import number
from bnkit.lab.experiments.findings import Row, Table

_ACROSS = 4  # the most cells side by side on a phone


@dataclass(frozen=True)
class Cell:
    """The figures of one row as text; `published` and `span` are empty where there is none."""

    mean: str
    span: str
    published: str
    differs: bool


@dataclass(frozen=True)
class Line:
    setting: tuple[str, ...]
    cells: dict[str, Cell | None]  # by kind; None where the table has no such row
    note: str


@dataclass(frozen=True)
class Layout:
    """stacked: whether a phone shows the settings above the figures; across: how many of these are side by side."""

    table: Table
    published: dict[str, bool]  # by kind: whether any of its figures is published
    lines: list[Line]
    notes: bool
    differs: bool
    stacked: bool
    across: int


def layout(table: Table) -> Layout:
    """The table's rows by setting, with figures that have the table's decimals."""
    kinds = list(dict.fromkeys(row.kind for row in table.rows))
    published = {kind: any(r.published is not None for r in table.rows if r.kind == kind) for kind in kinds}
    settings: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in table.rows:
        settings.setdefault(row.setting, {})[row.kind] = row
    lines = []
    for setting, rows in settings.items():
        cells = {kind: _cell(rows[kind], table) if kind in rows else None for kind in kinds}
        note = "; ".join(f"{row.kind}: {row.note}" for row in rows.values() if row.note)
        lines.append(Line(setting, cells, note))
    notes = any(line.note for line in lines)
    differs = any(cell.differs for line in lines for cell in line.cells.values() if cell)
    stacked = notes or len(table.setting) + len(kinds) > 3
    return Layout(table, published, lines, notes, differs, stacked, len(kinds) if len(kinds) <= _ACROSS else 3)


def _cell(row: Row, table: Table) -> Cell:
    decimals = table.decimals

    def text(value: float) -> str:
        return number(value) if decimals is None else f"{value:.{decimals}f}".replace("-", "−")

    span = "" if row.low == row.high else f"{text(row.low)} to {text(row.high)}"
    published = "" if row.published is None else text(row.published)
    return Cell(text(row.mean), span, published, not row.agrees(table.tolerance))
