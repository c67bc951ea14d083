"""`bnkit bench`: the time of every case and op, compared with a copy, the reference ops and other libraries."""

import contextlib
import os
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bnkit.backend import Backend, get_backend
from bnkit.cli import bench_text, results
from bnkit.cli.interrupts import held_on_demand
from bnkit.cli.progress import progress
from bnkit.cli.shared import BackendOption, DataDirOption, DataOption, OverwriteOption, as_usage, need, prepare
from bnkit.data.files import check_target
from bnkit.lab.benchmark import experiment, measure
from bnkit.lab.benchmark import rows as benchmark
from bnkit.lab.benchmark.peers import ON_DEVICE, PACKAGES, Peer, PeerError, check_installed, command
from bnkit.lab.benchmark.peers.weight_scale import Problem, problem
from bnkit.lab.benchmark.plot import plot as draw
from bnkit.lab.benchmark.rows import Item, Row, Settings
from bnkit.lab.benchmark.workload import DTYPES
from bnkit.lab.experiments import records as record_files
from bnkit.lab.experiments import weight_scale


def bench(
    context: typer.Context,
    cases: Annotated[
        str | None,
        typer.Option(
            help="Names of cases or parts of names, such as 100x100,NHWC; the default is every case of batch norm. "
            "weight-scale is the tutorial's experiment: it reads --data, ignores --ops and --dtypes, and takes minutes."
        ),
    ] = None,
    ops: Annotated[
        str | None,
        typer.Option(
            help=f"Among {', '.join(measure.OPS)}; the default is all of these. Or {', '.join(measure.UPDATES)}: "
            "a step of an optimizer, with one parameter for each element of the case."
        ),
    ] = None,
    dtypes: Annotated[str, typer.Option(help=f"Among {', '.join(DTYPES)}.")] = "float32",
    layouts: Annotated[
        str | None, typer.Option(help=f"Among {', '.join(measure.LAYOUTS)}; the default is all.")
    ] = None,
    backend: BackendOption = None,
    against: Annotated[
        str | None, typer.Option(help=f"Other libraries, each in a separate process: {', '.join(PACKAGES)}.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.001, help="Time of bnkit, and of each peer, in a row.")] = 0.5,
    reference: Annotated[
        bool, typer.Option(help="Also time the reference ops, with one call on large tensors.")
    ] = True,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the settings, versions, machine and rows to this file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the share of the copy bandwidth by size into this file.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure small cases for a short time, to see that the command works.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Time batch norm, and compare it with the machine's copy bandwidth and with other libraries."""
    device = get_backend(backend)
    on_host = device.array_module == "numpy"
    with as_usage():
        known = measure.cases(resnet_batch=50 if on_host else 256)
        names = _list(cases, "cases")
        of_batch_norm = [name for name in names if name != experiment.NAME]
        chosen = []
        if of_batch_norm or not names:
            chosen = benchmark.chosen_cases(known, of_batch_norm, _list(layouts, "layouts"), quick=quick)
        elif plot is not None:
            raise ValueError("plot must be left out if no case of batch norm is measured")
        settings = Settings(
            cases=tuple(case.name for case in chosen),
            ops=_among(ops, "ops", [*measure.OPS, *measure.UPDATES]) or tuple(measure.OPS),
            dtypes=_among(dtypes, "dtypes", DTYPES),
            backend=backend,
            against=_among(against, "against", PACKAGES),
            seconds=min(seconds, 0.05) if quick else seconds,
            reference=reference,
            experiment=_experiment(data, data_dir, backend, quick) if experiment.NAME in names else None,
            command=_command(context),
        )
        benchmark.check_updates(settings)
        if plot is not None and not any(op in measure.OPS for op in settings.ops):
            raise ValueError("plot must be left out if no op of batch norm is measured")
        _check_peers(settings, device)
    for peer in settings.against:
        check_installed(peer)
    _check_files(json, plot, overwrite=overwrite)
    work = None if settings.experiment is None else problem(settings.experiment)
    threads = device.details().get("threads") or os.cpu_count() or 1  # on a GPU the peers' threads only launch
    place = "cpu" if on_host else f"cuda:{device.device}"
    with device.scope(), contextlib.ExitStack() as processes:
        peers = [processes.enter_context(contextlib.closing(_start(name, threads, place))) for name in settings.against]
        _measure(benchmark.plan(chosen, settings), work, settings, device, peers, json, plot)


def _measure(
    items: list[Item],
    work: Problem | None,
    settings: Settings,
    device: Backend,
    peers: list[Peer],
    json: Path | None,
    plot: Path | None,
) -> None:
    """Print each row as soon as it is measured, and write the files at the end.

    An interrupted run writes its rows too. It does not replace an existing file: its rows go to NAME_part.
    """
    console = Console(soft_wrap=True, highlight=False)
    rows: list[Row] = []
    details, caches = device.details(), measure.caches(device)
    bandwidth = measure.copy_bandwidth(device)
    described = ", ".join(f"{name} {details.get(name)}" for name in ("device", "threads", "simd"))
    console.print(f"{device.key}: {described}")
    console.print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s, read and written")
    names = [peer.name for peer in peers]
    console.print(bench_text.head(names))

    def summarize() -> None:
        if rows:
            console.print("\n".join(bench_text.LEGEND), markup=False)
        for name in names:
            console.print(bench_text.summary_line(rows, name), markup=False)

    def target(path: Path) -> Path:
        whole = len(rows) == len(items) + (work is not None)
        return path if whole or not path.exists() else path.with_stem(f"{path.stem}_part")

    def keep() -> None:
        versions = {name: version for peer in peers for name, version in peer.versions.items()}
        machine = {"copy_gb_per_s": bandwidth / 1e9, "caches": caches}
        files: dict[Path, Callable[[Path], None]] = {}
        if rows and json is not None:
            files[target(json)] = lambda path: record_files.write(
                path, settings, rows, device, more_versions=versions, more_machine=machine
            )
        if rows and plot is not None:
            files[target(plot)] = lambda path: results.save_figure(draw(rows, bandwidth / 1e9, caches), path, dpi=130)
        results.write(files)

    with held_on_demand() as hold_interrupts, contextlib.ExitStack() as at_the_end:
        # The callbacks run in reverse order, and each runs even if another fails: stdout may be a closed pipe.
        at_the_end.callback(keep)
        at_the_end.callback(summarize)
        at_the_end.callback(hold_interrupts)
        with progress("starting", "rows", total=len(items) + (work is not None), console=console) as tell:

            def add(row: Row) -> None:
                rows.append(row)
                console.print(bench_text.line(row, names), markup=False)
                tell(len(rows))
                for lost in bench_text.newly_lost(rows):
                    console.print(lost, markup=False)

            for row in benchmark.run(
                settings, items, device, peers, bandwidth,
                on_start=lambda item: tell(len(rows), text=item.name),
            ):  # fmt: skip
                add(row)
            if work is not None:
                tell(len(rows), text=experiment.NAME)
                add(experiment.row(work, device, peers))
                console.print(bench_text.products_line(rows[-1]), markup=False)
            hold_interrupts()


def _experiment(data: str, data_dir: Path | None, backend: str | None, quick: bool) -> weight_scale.Settings:
    folder = None if data_dir is None else str(data_dir)
    return weight_scale.Settings(data=data, data_dir=folder, backend=backend, seeds=1, epochs=2 if quick else 20)


def _check_peers(settings: Settings, device: Backend) -> None:
    known = ON_DEVICE.get(device.array_module, ())
    for name in settings.against:
        if not known:
            raise ValueError(f"against must be left out with backend {device.key}: no peer computes on its arrays")
        if name not in known:
            raise ValueError(f"against must be among {', '.join(known)} with backend {device.key}, got {name!r}")
    if settings.against and settings.experiment is not None and device.array_module != "numpy":
        raise ValueError(f"against must be left out with {experiment.NAME} and backend {device.key}")


def _start(name: str, threads: int, place: str) -> Peer:
    try:
        return Peer(name, command(name, threads, place), threads)
    except PeerError as error:
        raise PeerError(f"peer {name} {error}; check that Python can import it", alive=False) from error


def _check_files(json: Path | None, plot: Path | None, *, overwrite: bool) -> None:
    if plot is not None:
        if plot.suffix.lower() not in results.FIGURES:
            raise typer.BadParameter(
                f"must end with one of {', '.join(results.FIGURES)}, got {plot}", param_hint="--plot"
            )
        need("matplotlib")
    if json is not None and plot is not None and json.resolve() == plot.resolve():
        raise typer.BadParameter(f"must be another file than --json, got {plot} for both", param_hint="--plot")
    for option, path in (("--json", json), ("--plot", plot)):
        if path is not None:
            if not overwrite:
                results.refuse_existing([path], option)
            prepare(path.parent, option)
            check_target(path)


def _list(text: str | None, option: str) -> tuple[str, ...]:
    """The values between the commas; () without the option; ValueError for an empty text, as from an unset variable."""
    values = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    if text is not None and not values:
        raise ValueError(f"{option} must name at least one, got {text!r}; or leave it out")
    return values


def _among(text: str | None, option: str, names: Collection[str]) -> tuple[str, ...]:
    values = _list(text, option)
    for value in values:
        if value not in names:
            raise ValueError(f"{option} must be among {', '.join(names)}, got {value!r}")
    return values


def _command(context: typer.Context) -> str:
    """The command line of this run, which the result file records."""
    parts = ["bnkit", "bench"]
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            value = context.params[str(parameter.name)]
            parts += [(parameter.opts if value is not False else parameter.secondary_opts)[0]]
            parts += [] if isinstance(value, bool) else [str(value)]
    return shlex.join(parts)
