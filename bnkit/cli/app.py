"""The commands of `bnkit`, and what becomes of an error: one line on stderr and an exit code."""

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import bnkit
from bnkit.cli import INTERRUPTED, bench, info, report, run, train
from bnkit.cli.bench_text import LEGEND

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Batch normalization and MLP training on NumPy and CuPy arrays.",
)  # fmt: skip
app.command()(info.info)
app.add_typer(run.app, name="run")
app.command()(train.train)
app.command(epilog=f"Columns of the table. {' '.join(LEGEND)}")(bench.bench)
app.command()(report.report)


def call(argv: Sequence[str] | None) -> int:
    """Run the command line; the exit code. An error is one line on stderr, with `--debug` a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # a pipe's encoding may lack what a table shows
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = 0
    try:
        app(args=[a for a in arguments if a != "--debug"], prog_name="bnkit")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = INTERRUPTED if _from_interrupt(error) else 1
        if debug:
            raise
        if code == 1:
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"bnkit: {message}", err=True)
    if code == INTERRUPTED:  # typer made an exit of most KeyboardInterrupts
        typer.echo("bnkit: interrupted", err=True)
    return code


def _from_interrupt(error: BaseException | None) -> bool:
    """Whether this is a KeyboardInterrupt that was taken for another error, as the making of a class does."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bnkit {bnkit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...
