"""`bnkit run`: the experiments, a command each, built from their `Settings`."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bnkit import data as datasets
from bnkit.backend import get_backend
from bnkit.cli import results
from bnkit.cli.findings_text import print_findings
from bnkit.cli.interrupts import held_on_demand
from bnkit.cli.progress import progress
from bnkit.cli.shared import (
    BackendOption,
    DataDirOption,
    OutOption,
    OverwriteOption,
    need,
    one_of,
    prepare,
    print_settings,
)
from bnkit.data.files import check_target
from bnkit.lab import experiments
from bnkit.lab.experiments import records as record_files

app = typer.Typer(no_args_is_help=True, help="Run an experiment, and write its figure and records.")


def _list(asked: bool) -> None:
    if asked:
        width = max(map(len, experiments.QUESTIONS))
        for name, question in experiments.QUESTIONS.items():
            typer.echo(f"{name:{width}}  {question}")
        raise typer.Exit


@app.callback()
def _options(
    listed: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="Show the experiments and their questions.")
    ] = False,
) -> None: ...


def _command(name: str) -> Callable[..., None]:
    def command(
        data: Annotated[str | None, one_of(datasets.LOADERS, "The dataset, else digits", optional=True)] = None,
        data_dir: DataDirOption = None,
        backend: BackendOption = None,
        seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; the figure's bands span them.")] = None,
        epochs: Annotated[
            int | None, typer.Option(min=1, help="Epochs of training, else the experiment's own.")
        ] = None,
        out: OutOption = Path(),
        quick: Annotated[
            bool,
            typer.Option("--quick", help="Smaller, in seconds, to see that it works; into files named NAME_quick."),
        ] = False,
        source: Annotated[
            Path | None,
            typer.Option("--from", help="Do again what this file of results says; only --data-dir may differ."),
        ] = None,
        overwrite: OverwriteOption = False,
    ) -> None:
        given: dict[str, Any] = {"data": data, "data_dir": None if data_dir is None else str(data_dir)}
        given |= {"backend": backend, "seeds": seeds, "epochs": epochs}
        experiment = experiments.load(name)
        given = {option: value for option, value in given.items() if value is not None}
        settings = _settings(name, experiment, given, quick, source)
        repeats_quick = source is not None and experiments.of_file(source.stem) == (name, True)
        stem = experiments.file_stem(name, quick=quick or repeats_quick)
        _run(name, experiment, settings, out, stem, overwrite=overwrite)

    return command


for _name, _question in experiments.QUESTIONS.items():
    app.command(_name, help=_question)(_command(_name))


def _settings(name: str, experiment: Any, given: dict[str, Any], quick: bool, source: Path | None) -> Any:
    """The experiment's settings with what was given; that must not contradict a file they are from."""
    fields = {field.name for field in dataclasses.fields(experiment.Settings)}
    if unknown := sorted(given.keys() - fields):
        raise typer.BadParameter(f"--{unknown[0].replace('_', '-')} is no setting of {name}; leave it out")
    if source is None:
        settings = dataclasses.replace(experiment.Settings(), **given)
        return dataclasses.replace(experiment.quick(settings), **given) if quick else settings
    settings = record_files.read_settings(source, experiment.Settings)
    settings = dataclasses.replace(settings, **{k: v for k, v in given.items() if k == "data_dir"})
    for option, value in given.items():
        if getattr(settings, option) != value:
            says = f"{source} says {getattr(settings, option)}"
            raise typer.BadParameter(
                f"--{option.replace('_', '-')} {value} contradicts --from, for {says}; leave one out"
            )
    if quick and experiment.quick(settings) != settings:
        raise typer.BadParameter(f"--quick contradicts --from, for {source} is of a larger run; leave one out")
    return settings


def _was_writing(settings: Any, kept: Path, records: Path) -> bool:
    """Whether these records are of the run that left the checkpoint: it was killed before its last file."""
    try:
        return kept.exists() and bool(record_files.read_settings(records, type(settings)) == settings)
    except (OSError, ValueError):
        return False


def _run(name: str, experiment: Any, settings: Any, out: Path, stem: str, *, overwrite: bool) -> None:
    kept, records, figure = (out / f"{stem}.{suffix}" for suffix in ("checkpoint", "json", "png"))
    if not overwrite and not _was_writing(settings, kept, records):
        results.refuse_existing([records, figure])
    need("matplotlib")
    prepare(out)
    for path in (kept, records, figure):
        check_target(path)
    resumable = "checkpoint" in inspect.signature(experiment.run).parameters
    print_settings(name, dataclasses.asdict(settings))
    if resumable and kept.exists():
        typer.echo(f"going on from {kept}")
    with held_on_demand() as hold_interrupts:
        try:
            with progress(name, "updates") as tell:
                found = experiment.run(settings, on_progress=tell, **({"checkpoint": kept} if resumable else {}))
        except KeyboardInterrupt:
            if kept.exists():
                typer.echo(f"bnkit: the same command goes on from {kept}", err=True)
            raise
        hold_interrupts()
        try:
            print_findings(Console(), experiment.findings(found, settings))
        finally:  # stdout may be a pipe that nobody reads any more
            device = get_backend(settings.backend)
            files: dict[Path, Callable[[Path], None]] = {
                records: lambda path: record_files.write(path, settings, found, device),
                figure: lambda path: results.save_figure(experiment.plot(found), path, dpi=120),
            }
            results.write(files)
            if resumable:
                kept.unlink(missing_ok=True)
