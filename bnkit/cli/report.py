"""`bnkit report`: the findings of the experiments' record files as one HTML page."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from bnkit.cli import results
from bnkit.cli.shared import OverwriteOption
from bnkit.data.files import replacing
from bnkit.lab import report as reports


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds the record files.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; else report.html in DIR.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Gather the experiments' record files of a folder into one HTML page that needs no network.

    A page that an earlier bnkit report made is replaced; any other file only with --overwrite.
    """
    out = folder / "report.html" if out is None else out
    if not overwrite and not reports.is_page(out):
        results.refuse_existing([out])
    experiments, left_out = reports.gather(folder)
    page = reports.page(experiments, date=datetime.date.today())
    try:
        with replacing(out, mode="w") as file:
            file.write(page)
    except OSError as error:
        if error.strerror is None:  # the message has its remedy already
            raise
        raise OSError(f"cannot write {out} ({error.strerror}); name another file by --out") from error
    for why in dict.fromkeys(left_out.values()):
        typer.echo(f"left out {', '.join(name for name, reason in left_out.items() if reason == why)}: {why}")
    typer.echo(f"wrote {out} ({len(page.encode()) / 1e6:.2f} MB)")
