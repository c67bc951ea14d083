"""`bnkit train`: one network with every option of `MLP` and `fit`."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

from bnkit import data as datasets
from bnkit.cli import results
from bnkit.cli.interrupts import held_on_demand
from bnkit.cli.progress import progress
from bnkit.cli.shared import (
    BackendOption,
    DataDirOption,
    DataOption,
    EpochsOption,
    OverwriteOption,
    as_usage,
    one_of,
    prepare,
    print_settings,
)
from bnkit.data.files import check_target
from bnkit.nn import archive
from bnkit.nn.architecture import ACTIVATIONS
from bnkit.nn.mlp import MLP
from bnkit.training import optimizers as optim
from bnkit.training.callbacks import EarlyStopping, Record
from bnkit.training.epoch import METRICS
from bnkit.training.fit import DivergenceWarning, fit


def train(
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    hidden: Annotated[str, typer.Option(help="Sizes of the hidden layers.")] = "100,100",
    activation: Annotated[str, one_of(ACTIVATIONS, "After each hidden layer")] = "relu",
    batch_norm: Annotated[bool, typer.Option(help="Batch norm before each activation.")] = True,
    decay: Annotated[str, typer.Option(help="Weight of the old running statistics; 'none': cumulative.")] = "0.9",
    eps: Annotated[float, typer.Option(help="Added to the variance.")] = 1e-5,
    correction: Annotated[int, typer.Option(help="Subtracted from the count in the running variance: 0 or 1.")] = 1,
    affine: Annotated[bool, typer.Option(help="Batch norm learns gamma and beta.")] = True,
    track: Annotated[bool, typer.Option(help="Batch norm keeps running statistics.")] = True,
    ghost: Annotated[int | None, typer.Option(min=1, help="Rows of a ghost batch.")] = None,
    bias: Annotated[bool, typer.Option(help="A bias before batch norm too.")] = True,
    init: Annotated[str, typer.Option(help="he, xavier or a standard deviation; with replicas, a,b,c.")] = "he",
    dropout: Annotated[float, typer.Option(help="Probability that a hidden value is dropped.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="λ in ½ λ ΣW².")] = 0.0,
    replicas: Annotated[int | None, typer.Option(min=1, help="Networks trained in lockstep.")] = None,
    optimizer: Annotated[str, one_of(optim.BY_NAME, "The optimizer")] = "sgd",
    lr: Annotated[str | None, typer.Option(help="Learning rate; with replicas, a,b,c.")] = None,
    epochs: EpochsOption = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 100,
    seed: Annotated[str, typer.Option(help="Seed of weights, dropout and batches; with replicas, a,b,c.")] = "0",
    drop_last: Annotated[bool, typer.Option("--drop-last", help="Leave out the last batch if it is smaller.")] = False,
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after N epochs without improvement.")] = None,
    monitor: Annotated[str, one_of(METRICS, "The metric for --patience and --restore-best")] = "test_accuracy",
    restore_best: Annotated[bool, typer.Option("--restore-best", help="Save the best epoch's network.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Written each epoch; a killed run resumes from it.")] = None,
    backend: BackendOption = None,
    dtype: Annotated[str, one_of(("float32", "float64"), "The dtype of the network")] = "float32",
    out: Annotated[Path, typer.Option(help="The file for the trained network.")] = Path("model.npz"),
    overwrite: OverwriteOption = False,
) -> None:
    """Train one MLP on a dataset, save it, and print its test accuracy.

    With --checkpoint, the same command resumes a killed training, or writes the network of a finished one again. If a
    network diverges, the exit code is 1. If all diverge, nothing is saved.
    """
    if checkpoint is not None and checkpoint.resolve() == out.resolve():
        raise typer.BadParameter(f"must be another file than --out, got {out} for both", param_hint="--checkpoint")
    if not overwrite and not _holds_network_of(checkpoint, out):
        results.refuse_existing([out])
    loaded = datasets.load(data, path=data_dir)
    norm = {"decay": _number(decay, "decay", none=True), "eps": eps, "correction": correction}
    norm |= {"affine": affine, "track": track, "ghost": ghost}
    seeds = _list(seed, "seed", int)
    with as_usage():
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
            prepare(path.parent)
            check_target(path)
    print_settings("train", {"data": repr(loaded), **model.config, "optimizer": repr(stepper), "epochs": epochs})
    stopping = EarlyStopping(monitor, patience=patience or epochs, restore_best=restore_best)
    finished: list[Record] = []

    def show(record: Record, _: MLP) -> bool:
        finished.append(record)
        text = f"loss {_mean(record['loss']):.4f}, test accuracy {_mean(record['test_accuracy']):.4f}"
        tell(record["epoch"], text=text)
        return bool(np.all(record["diverged"]))  # stop: no replica can recover

    with held_on_demand() as hold_interrupts, _plain_warnings() as warned:
        try:
            with progress("training", "epochs", total=epochs) as tell, as_usage():
                records = fit(
                    model,
                    loaded,
                    optimizer=stepper,
                    epochs=epochs,
                    batch_size=batch_size,
                    drop_last=drop_last,
                    seed=seeds if isinstance(seeds, int) else seeds[0],
                    callbacks=[show, stopping],
                    checkpoint=checkpoint,
                )
        except OSError as error:
            if not finished:
                raise
            hold_interrupts()  # the checkpoint cannot be written, but perhaps the network can
            _save(model, out)
            raise OSError(f"{error}; {out} holds the network after epoch {finished[-1]['epoch']}") from error
        hold_interrupts()
        try:
            _print_result(records, stopping)
        finally:  # stdout may be a closed pipe
            _save(model, out)
    if np.any(records[-1]["diverged"]):
        if not warned:
            first = next(record["epoch"] for record in records if np.any(record["diverged"]))
            typer.echo(f"bnkit: the training had diverged in epoch {first}, before it was resumed", err=True)
        raise typer.Exit(1)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[list[str]]:
    """Print each DivergenceWarning of `fit` as a line on stderr, and collect the texts in the yielded list."""
    warned: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", DivergenceWarning)
        show = warnings.showwarning

        def echo(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, DivergenceWarning):
                show(message, category, filename, lineno, file, line)
                return
            warned.append(str(message))
            typer.echo(f"bnkit: {message}", err=True)

        warnings.showwarning = echo
        yield warned


def _print_result(records: Sequence[Record], stopping: EarlyStopping) -> None:
    """Print the metrics of the saved network: of the best epoch with restore_best, else of the last."""
    last = records[-1]["epoch"]
    epochs = np.atleast_1d(last)
    if stopping.restore_best:
        epochs = np.where(np.atleast_1d(stopping.best_epoch), stopping.best_epoch, last)
    best = "" if np.all(epochs == last) else f", best by {stopping.monitor}: {', '.join(map(str, epochs))}"
    typer.echo(f"epochs: {last}{best}")
    for field, metric in METRICS.items():
        table = np.array([record[field] for record in records]).reshape(last, -1)
        values = table[np.broadcast_to(epochs, table.shape[1]) - 1, np.arange(table.shape[1])]
        typer.echo(f"{metric.label}: {', '.join(f'{v:.4f}' for v in values)}")


def _save(model: MLP, out: Path) -> None:
    """Write the model, unless every replica has diverged."""
    if np.any(model.backend.to_numpy(model.finite())):
        results.write({out: model.save})
        return
    outcome = f"{out} stays as it was" if out.exists() else f"{out} is not written"
    typer.echo(f"bnkit: {outcome}, since the network diverged", err=True)


def _holds_network_of(checkpoint: Path | None, out: Path) -> bool:
    """Whether `out` holds the network from which the training resumes, so that it may be overwritten."""
    if checkpoint is None:
        return False
    try:
        (_, resumed), (_, saved) = archive.load(checkpoint, "fit"), archive.load(out, "mlp")
    except (OSError, ValueError):
        return False
    # The counts of batches are no evidence: restore_best mixes the replicas' epochs, but keeps the last count.
    arrays = {name: array for name, array in saved.items() if array.ndim > 0}
    return any(
        all(
            f"{prefix}{name}" in resumed and resumed[f"{prefix}{name}"].tobytes() == a.tobytes()
            for name, a in arrays.items()
        )
        for prefix in ("", "best/")
    )


def _sizes(text: str) -> list[int]:
    sizes = _list(text, "hidden", int) if text else []
    return sizes if isinstance(sizes, list) else [sizes]


def _list(text: str, name: str, convert: Any) -> Any:
    """The value of a text without commas, else the list of values."""
    values = [_convert(item.strip(), name, convert) for item in text.split(",")]
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


def _mean(value: Any) -> float:
    return sum(value) / len(value) if isinstance(value, list) else float(value)
