"""The command line, and the only place that prints. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""

import contextlib
import dataclasses
import importlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import bnkit
from bnkit import data as datasets
from bnkit import optim
from bnkit.backend import BackendError, BackendInfo, backends, get_backend
from bnkit.checkpoint import check_target
from bnkit.experiments import records as record_files
from bnkit.experiments import weight_scale
from bnkit.mlp import ACTIVATIONS, MLP
from bnkit.train import EarlyStopping, Record, fit

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Batch normalization and MLP training on NumPy and CuPy arrays.",
)  # fmt: skip
run_app = typer.Typer(no_args_is_help=True, help="Run an experiment, and write its figure and records.")
app.add_typer(run_app, name="run")


def _one_of(names: Iterable[str], what: str) -> Any:
    """A text option that takes one of `names`."""
    listed = ", ".join(names)

    def check(value: str) -> str:
        if value not in listed.split(", "):
            raise typer.BadParameter(f"must be one of {listed}, got {value!r}")
        return value

    return typer.Option(callback=check, help=f"{what}: {listed}.")


DataOption = Annotated[str, _one_of(datasets.LOADERS, "The dataset")]
DataDirOption = Annotated[
    Path | None, typer.Option(help="The folder that holds MNIST's files; else BNKIT_DATA_DIR, else a download.")
]
BackendOption = Annotated[
    str | None, typer.Option(help="numpy, cupy, cupy:1, auto or another; else BNKIT_BACKEND, else auto.")
]
SeedsOption = Annotated[int, typer.Option(min=1, help="How many seeds; the figure's band spans them.")]
EpochsOption = Annotated[int, typer.Option(min=1, help="Epochs of training.")]
OutOption = Annotated[Path, typer.Option(help="The folder for the results; made where it is missing.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. An error is one line on stderr, with `--debug` a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        app(args=[a for a in arguments if a != "--debug"], prog_name="bnkit")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"bnkit: {message}", err=True)
        return 1
    return 0


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


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the backends: usable or why not, device, versions, threads, SIMD level, compiled kernels."""
    known = backends()
    try:
        default = get_backend().key
    except BackendError as error:
        default = str(error)
    if as_json:
        described = {
            "bnkit": bnkit.__version__,
            "python": platform.python_version(),
            "default": default,
            "backends": {name: {"usable": b.usable, "reason": b.reason, **b.details} for name, b in known.items()},
        }
        typer.echo(json.dumps(described, indent=1))
        return
    table = Table("", *known, title=f"bnkit {bnkit.__version__}, Python {platform.python_version()}")
    for title, cell in _INFO_ROWS.items():
        cells = [cell(b) if b.usable or title == "usable" else "-" for b in known.values()]
        table.add_row(title, *map(escape, cells))
    Console().print(table)
    typer.echo(f"default backend: {default}")


_INFO_ROWS: dict[str, Any] = {
    "usable": lambda b: "yes" if b.usable else f"no: {b.reason}",
    "device": lambda b: _text(b, "device"),
    "libraries": lambda b: "\n".join(f"{k} {v}" for k, v in b.details.get("libraries", {}).items()) or "-",
    "threads": lambda b: _text(b, "threads"),
    "SIMD level": lambda b: _text(b, "simd"),
    "compiled kernels": lambda b: "yes" if b.details.get("compiled_kernels") else "no",
}


def _text(backend: BackendInfo, name: str) -> str:
    value = backend.details.get(name)
    return "-" if value is None else str(value)


@run_app.command("weight-scale")
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
    _need("matplotlib")
    _prepare(out)
    _print_settings("weight-scale", dataclasses.asdict(settings))
    with _progress() as progress:
        task = progress.add_task("training 32 networks a seed", total=None)
        records = weight_scale.run(
            settings, on_progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    over = "" if settings.seeds == 1 else f", mean and range over {settings.seeds} seeds"
    table = Table("W", "plain", "batch norm", title=f"accuracy on the training images{over}")
    for scale, kinds in weight_scale.final(records).items():
        table.add_row(f"{scale:.3g}", *(_accuracy(*kinds[kind]) for kind in (False, True)))
    Console().print(table)
    record_files.write(out / "weight_scale.json", settings, records, get_backend(backend))
    weight_scale.plot(records).savefig(out / "weight_scale.png", dpi=120)
    typer.echo(f"wrote {out / 'weight_scale.png'} and {out / 'weight_scale.json'}")


@app.command()
def train(
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    hidden: Annotated[str, typer.Option(help="Sizes of the hidden layers.")] = "100,100",
    activation: Annotated[str, _one_of(ACTIVATIONS, "After each hidden layer")] = "relu",
    batch_norm: Annotated[bool, typer.Option(help="Batch norm before each activation.")] = True,
    decay: Annotated[str, typer.Option(help="Weight of the old running statistics; 'none': cumulative.")] = "0.9",
    eps: Annotated[float, typer.Option(help="Added to the variance.")] = 1e-5,
    correction: Annotated[int, typer.Option(help="Subtracted from the count in the running variance: 0 or 1.")] = 1,
    affine: Annotated[bool, typer.Option(help="Batch norm learns gamma and beta.")] = True,
    track: Annotated[bool, typer.Option(help="Batch norm keeps running statistics.")] = True,
    ghost: Annotated[int | None, typer.Option(min=1, help="Rows of a ghost batch.")] = None,
    bias: Annotated[bool, typer.Option(help="A bias also before batch norm.")] = True,
    init: Annotated[str, typer.Option(help="he, xavier or a standard deviation; with replicas, a,b,c.")] = "he",
    dropout: Annotated[float, typer.Option(help="Probability that a hidden value is dropped.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="λ in ½ λ ΣW².")] = 0.0,
    replicas: Annotated[int | None, typer.Option(min=1, help="Networks trained in lockstep.")] = None,
    optimizer: Annotated[str, _one_of(optim.BY_NAME, "The optimizer")] = "sgd",
    lr: Annotated[str | None, typer.Option(help="Learning rate; with replicas, a,b,c.")] = None,
    epochs: EpochsOption = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of an update.")] = 100,
    seed: Annotated[str, typer.Option(help="Of weights, dropout and order; with replicas, a,b,c.")] = "0",
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after so many epochs without progress.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Written each epoch; a killed run goes on from it.")] = None,
    backend: BackendOption = None,
    dtype: Annotated[str, _one_of(("float32", "float64"), "Of the network")] = "float32",
    out: Annotated[Path, typer.Option(help="The file for the trained network.")] = Path("model.npz"),
) -> None:
    """Train one MLP on a dataset, save it, and print its test accuracy."""
    loaded = datasets.load(data, path=data_dir)
    norm = {"decay": _number(decay, "decay", none=True), "eps": eps, "correction": correction}
    norm |= {"affine": affine, "track": track, "ghost": ghost}
    seeds = _list(seed, "seed", int)
    with _as_usage():
        model = MLP(
            (loaded.x_train.shape[1], *_sizes(hidden), loaded.classes),
            batch_norm=norm if batch_norm else False,
            activation=activation,
            bias=bias,
            init=_list(init, "init", _init),
            dropout=dropout,
            weight_decay=weight_decay,
            replicas=replicas,
            seed=seeds,
            backend=backend,
            dtype=dtype,
        )
        rates = {} if lr is None else {"lr": _list(lr, "lr", float)}
        stepper = optim.BY_NAME[optimizer](**rates)
    for path in (out, checkpoint):
        if path is not None:
            _prepare(path.parent)
            check_target(path)
    _print_settings("train", {"data": repr(loaded), **model.config, "optimizer": repr(stepper), "epochs": epochs})
    with _progress() as progress:
        task = progress.add_task("training", total=epochs)

        def show(record: Record, _: MLP) -> None:
            description = f"loss {_mean(record['loss']):.4f}, test accuracy {_mean(record['test_accuracy']):.4f}"
            progress.update(task, completed=record["epoch"], description=description)

        with _as_usage():
            records = fit(
                model,
                loaded,
                optimizer=stepper,
                epochs=epochs,
                batch_size=batch_size,
                seed=seeds if isinstance(seeds, int) else seeds[0],
                callbacks=[show] if patience is None else [show, EarlyStopping(patience=patience)],
                checkpoint=checkpoint,
            )
    model.save(out)
    last = records[-1]
    typer.echo(f"epochs: {last['epoch']}, training loss: {_values(last['loss'])}")
    typer.echo(f"training accuracy: {_values(last['train_accuracy'])}")
    typer.echo(f"test accuracy: {_values(last['test_accuracy'])}")
    typer.echo(f"wrote {out}")


def _sizes(text: str) -> list[int]:
    sizes = _list(text, "hidden", int) if text else []
    return sizes if isinstance(sizes, list) else [sizes]


def _list(text: str, name: str, convert: Any) -> Any:
    """One value, or a list of those between commas."""
    values = [_convert(part.strip(), name, convert) for part in text.split(",")]
    return values if len(values) > 1 else values[0]


def _number(text: str, name: str, *, none: bool = False) -> float | None:
    return None if none and text == "none" else float(_convert(text, name, float))


def _init(text: str) -> str | float:
    return text if text in ("he", "xavier") else float(text)


def _convert(text: str, name: str, convert: Any) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a legal value", param_hint=f"--{name}") from error


@contextlib.contextmanager
def _as_usage() -> Iterator[None]:
    """A value that an option must not have is a mistake in usage."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def _need(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"the figure needs {package}; run pip install 'bnkit[demo]'") from error


def _prepare(folder: Path) -> None:
    """The folder exists and can be written to: told before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error.strerror}); choose another --out") from error


def _print_settings(name: str, settings: dict[str, Any]) -> None:
    text = f"{name}: " + ", ".join(f"{k}={_short(v)}" for k, v in settings.items())
    Console().print(text, markup=False, highlight=False)


def _short(value: Any) -> str:
    if isinstance(value, (tuple, list)) and len(value) > 6 and isinstance(value[0], float):
        return f"{value[0]:.3g} … {value[-1]:.3g} ({len(value)})"
    return str(value)


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    text = TextColumn("{task.description}")
    return Progress(text, *columns, console=console, transient=True, disable=not console.is_terminal)


def _accuracy(mean: float, lowest: float, highest: float, diverged: int) -> str:
    text = f"{mean:.3f}" if lowest == highest else f"{mean:.3f} ({lowest:.3f} to {highest:.3f})"
    return f"{text} {diverged} diverged" if diverged else text


def _mean(value: Any) -> float:
    return sum(value) / len(value) if isinstance(value, list) else float(value)


def _values(value: Any) -> str:
    return ", ".join(f"{v:.4f}" for v in (value if isinstance(value, list) else [value]))
