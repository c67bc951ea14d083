"""`bnkit run`: the experiments, a command each."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bnkit.backend import get_backend
from bnkit.cli import results
from bnkit.cli.interrupts import held_on_demand
from bnkit.cli.shared import (
    BackendOption,
    DataDirOption,
    DataOption,
    EpochsOption,
    OutOption,
    SeedsOption,
    need,
    prepare,
    print_settings,
    progress_bar,
)
from bnkit.experiments import records as record_files
from bnkit.experiments import weight_scale

app = typer.Typer(no_args_is_help=True, help="Run an experiment, and write its figure and records.")


@app.command("weight-scale")
def run_weight_scale(
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    backend: BackendOption = None,
    seeds: SeedsOption = 3,
    epochs: EpochsOption = 20,
    out: OutOption = Path(),
    quick: Annotated[bool, typer.Option("--quick", help="A few epochs of one seed, to see that it works.")] = False,
) -> None:
    """Accuracy over 16 scales of the initial weights, with and without batch norm: the tutorial's experiment."""
    settings = weight_scale.Settings(
        data=data,
        data_dir=None if data_dir is None else str(data_dir),
        backend=backend,
        seeds=1 if quick else seeds,
        epochs=min(epochs, 5) if quick else epochs,
    )
    need("matplotlib")
    prepare(out)
    print_settings("weight-scale", dataclasses.asdict(settings))
    with held_on_demand() as hold_interrupts:
        with progress_bar() as progress:
            task = progress.add_task("training 32 networks a seed", total=None)
            records = weight_scale.run(
                settings, on_progress=lambda done, total: progress.update(task, completed=done, total=total)
            )
        hold_interrupts()
        try:
            Console().print(_table(settings, records))
        finally:  # stdout may be a pipe that nobody reads any more
            device = get_backend(backend)
            files: dict[Path, Callable[[Path], None]] = {
                out / "weight_scale.json": lambda path: record_files.write(path, settings, records, device),
                out / "weight_scale.png": lambda path: results.save_figure(weight_scale.plot(records), path, dpi=120),
            }
            results.write(files)


def _table(settings: weight_scale.Settings, records: list[record_files.Record]) -> Table:
    over = "" if settings.seeds == 1 else f", mean and range over {settings.seeds} seeds"
    table = Table("W", "plain", "batch norm", title=f"accuracy on the training images{over}")
    for scale, kinds in weight_scale.final(records).items():
        table.add_row(f"{scale:.3g}", *(_accuracy(*kinds[kind]) for kind in (False, True)))
    return table


def _accuracy(mean: float, lowest: float, highest: float, diverged: int) -> str:
    text = f"{mean:.3f}" if lowest == highest else f"{mean:.3f} ({lowest:.3f} to {highest:.3f})"
    return f"{text} {diverged} diverged" if diverged else text
