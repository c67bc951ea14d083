"""`bnkit run`: the experiments, a command each, built from their `Settings`."""

import dataclasses
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
from bnkit.lab.experiments import resumption
from bnkit.lab.experiments.experiment import Experiment
from bnkit.lab.experiments.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Run an experiment, and write its figure and records.")


def _list(show: bool) -> None:
    if show:
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
            int | None, typer.Option(min=1, help="Epochs of training, else the published number.")
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
        options: dict[str, Any] = {"data": data, "data_dir": None if data_dir is None else str(data_dir)}
        options |= {"backend": backend, "seeds": seeds, "epochs": epochs}
        experiment = experiments.load(name)
        options = {option: value for option, value in options.items() if value is not None}
        settings = _settings(experiment, options, quick, source)
        repeats_quick = source is not None and experiments.of_file(source.stem) == (name, True)
        stem = experiments.file_stem(name, quick=quick or repeats_quick)
        _run(experiment, settings, out, stem, overwrite=overwrite)

    return command


for _name, _question in experiments.QUESTIONS.items():
    app.command(_name, help=_question)(_command(_name))


def _settings(experiment: Experiment[Settings], options: dict[str, Any], quick: bool, source: Path | None) -> Settings:
    """The experiment's settings with the options; no option may contradict the file that the settings come from."""
    fields = {field.name for field in dataclasses.fields(experiment.settings)}
    if unknown := sorted(options.keys() - fields):
        raise typer.BadParameter(f"--{unknown[0].replace('_', '-')} is no setting of {experiment.name}; leave it out")
    if source is None:
        settings = dataclasses.replace(experiment.settings(), **options)
        return dataclasses.replace(experiment.quick(settings), **options) if quick else settings
    settings = record_files.read_settings(source, experiment.settings, experiment.name)
    settings = dataclasses.replace(settings, **{k: v for k, v in options.items() if k == "data_dir"})
    for option, value in options.items():
        if getattr(settings, option) != value:
            says = f"{source} says {getattr(settings, option)}"
            raise typer.BadParameter(
                f"--{option.replace('_', '-')} {value} contradicts --from, for {says}; leave one out"
            )
    if quick and experiment.quick(settings) != settings:
        raise typer.BadParameter(f"--quick contradicts --from, for {source} is of a larger run; leave one out")
    return settings


def _was_writing(settings: Settings, checkpoint: Path, records: Path) -> bool:
    """Whether these records are of the run that left the checkpoint: it was killed before it wrote its last file."""
    try:
        written = record_files.read_settings(records, type(settings))
        return bool(resumption.files(checkpoint)) and written == settings
    except (OSError, ValueError):
        return False


def _run(experiment: Experiment[Settings], settings: Settings, out: Path, stem: str, *, overwrite: bool) -> None:
    checkpoint, records, figure = (out / f"{stem}.{suffix}" for suffix in ("checkpoint", "json", "png"))
    if not overwrite and not _was_writing(settings, checkpoint, records):
        results.refuse_existing([records, figure])
    need("matplotlib")
    prepare(out)
    for path in (checkpoint, records, figure):
        check_target(path)
    print_settings(experiment.name, dataclasses.asdict(settings))
    if resumption.files(checkpoint):
        typer.echo(f"going on from {checkpoint}")
    with held_on_demand() as hold_interrupts:
        try:
            with progress(experiment.name, "updates") as tell:
                rows = experiment.run(settings, on_progress=tell, checkpoint=checkpoint)
        except KeyboardInterrupt:
            typer.echo(_what_is_kept(checkpoint), err=True)
            raise
        hold_interrupts()
        try:
            print_findings(Console(), experiment.findings(rows, settings))
        finally:  # the reader of a pipe at stdout may have closed it
            device = get_backend(settings.backend)
            files: dict[Path, Callable[[Path], None]] = {
                records: lambda path: record_files.write(path, settings, rows, device, experiment=experiment.name),
                figure: lambda path: results.save_figure(experiment.plot(rows), path, dpi=120),
            }
            results.write(files)
            resumption.remove(checkpoint)


def _what_is_kept(checkpoint: Path) -> str:
    kept = resumption.summary(checkpoint)
    if not kept:
        return "bnkit: nothing is kept yet, so the same command starts anew"
    return f"bnkit: kept {kept}; the same command goes on from {checkpoint}"
