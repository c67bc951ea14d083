"""What the records of the activations experiment show: histograms, a table of living units, verdicts."""

import statistics
from collections.abc import Sequence

import numpy as np

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.activations.settings import EDGES, Settings
from bnkit.lab.experiments.drawing import DENSE, Figure, draw
from bnkit.lab.experiments.findings import KINDS, Bars, Chart, Findings, Panel, Table, Verdict, graded, line, row, where
from bnkit.lab.experiments.records import Record

ENOUGH = 0.5  # the share of living units, in every layer, with which a network is spread
MADE_FOR = {"sigmoid": "xavier", "tanh": "xavier", "relu": "he"}


def findings(records: list[Record], settings: Settings) -> Findings:
    alive = {key: statistics.mean(seeds.values()) for key, seeds in _by_network(records).items()}
    first, *later = sorted({r["epoch"] for r in records})
    verdicts = (_by_batch_norm(alive, [first], "before training"), _by_batch_norm(alive, later, "in training"))
    tables = _living(records), _accuracies(records)
    return Findings(QUESTIONS["activations"], charts(records), tables, (*verdicts, _by_scale(alive, first)))


def charts(records: list[Record]) -> tuple[Chart, ...]:
    """Living units against epochs; for each activation histograms over rows, units and seeds, before and at the end."""
    drawn = [_course(records)]
    for activation in dict.fromkeys(r["activation"] for r in records):
        for epoch in (min(r["epoch"] for r in records), max(r["epoch"] for r in records)):
            measured = where(records, activation=activation, epoch=epoch)
            layers = sorted({r["layer"] for r in measured})
            panels = [
                _panel(where(measured, init=init, layer=layer), init, layer)
                for init in dict.fromkeys(r["init"] for r in measured)
                for layer in layers
            ]
            title = f"{activation}, " + ("before training" if epoch == 0 else f"after {epoch} epochs")
            drawn.append(Chart(title, "activation", "share of values", tuple(panels), columns=len(layers)))
    return tuple(drawn)


def arrange(charts: Sequence[Chart]) -> Figure:
    """The course, and below it a line for each activation: before training beside the end."""
    course, *histograms = charts
    return draw([course, *zip(histograms[::2], histograms[1::2], strict=True)], DENSE)


def _course(records: list[Record]) -> Chart:
    """The share of living units in the layer with fewest, against epochs: a panel for each activation and init."""
    networks: dict[tuple[str, str], dict[bool, list[Record]]] = {}
    for (activation, init, kind, epoch), shares in _by_network(records).items():
        kinds = networks.setdefault((activation, init), {True: [], False: []})
        kinds[kind] += [{"seed": seed, "epoch": epoch, "alive": share} for seed, share in shares.items()]
    panels = tuple(
        Panel(
            f"{activation}, {init}",
            tuple(line(KINDS[kind], KINDS[kind], alive, "epoch", "alive") for kind, alive in kinds.items()),
        )
        for (activation, init), kinds in networks.items()
    )
    title = "Units alive in the layer with fewest; mean of the seeds, the band spans them"
    return Chart(title, "epochs", "share of units", panels, y_range=(0.0, 1.0))


def _panel(records: list[Record], init: str | float, layer: int) -> Panel:
    bars = []
    for kind in (True, False):
        counts = np.sum([r["counts"] for r in where(records, batch_norm=kind)], axis=0)
        edges = np.linspace(*EDGES[records[0]["activation"]], len(counts) + 1)
        bars.append(Bars(KINDS[kind], KINDS[kind], tuple(edges.tolist()), tuple((counts / counts.sum()).tolist())))
    return Panel(f"{init}, layer {layer}", tuple(bars))


Key = tuple[str, str, bool, int]  # activation, init, batch norm, epoch


def _key(r: Record) -> Key:
    return r["activation"], str(r["init"]), r["batch_norm"], r["epoch"]


def _by_network(records: list[Record]) -> dict[Key, dict[int, float]]:
    """By seed, the share of living units in the layer that has fewest."""
    networks: dict[Key, dict[int, float]] = {}
    for r in records:
        seeds = networks.setdefault(_key(r), {})
        seeds[r["seed"]] = min(seeds.get(r["seed"], 1.0), r["alive"])
    return networks


def _living(records: list[Record]) -> Table:
    last, rows = max(r["epoch"] for r in records), []
    for (activation, init, kind, epoch), shares in _by_network(records).items():
        if epoch not in (0, last):
            continue
        when = "before" if epoch == 0 else "after"
        rows.append(row((activation, init), f"{KINDS[kind]}, {when}", list(shares.values())))
    title = "share of units alive in the layer with fewest, before and after training"
    return Table(title, ("activation", "initial weights"), tuple(rows), "", 0.0)


def _accuracies(records: list[Record]) -> Table:
    last = max(r["epoch"] for r in records)
    rows = []
    for activation, init, kind, epoch in _by_network(records):
        if epoch == last:
            first = [r for r in records if r["layer"] == 1 and _key(r) == (activation, init, kind, epoch)]
            rows.append(row((activation, init), KINDS[kind], [r["accuracy"] for r in first]))
    title = f"accuracy on the training images after {last} epochs"
    return Table(title, ("activation", "initial weights"), tuple(rows), "", 0.0)


def _spread(alive: dict[Key, float], kind: bool, epochs: list[int]) -> dict[tuple[str, str], bool]:
    """Of each activation and init, whether the networks are spread at all these epochs."""
    spread: dict[tuple[str, str], bool] = {}
    for key, share in alive.items():
        if key[2] == kind and key[3] in epochs:
            spread[key[:2]] = spread.get(key[:2], True) and share >= ENOUGH
    return spread


def _by_batch_norm(alive: dict[Key, float], epochs: list[int], when: str) -> Verdict:
    norm, plain = (_spread(alive, kind, epochs) for kind in (True, False))
    missing = ", ".join(f"{a} from {i}" for (a, i), ok in norm.items() if not ok)
    at = f", after each of {', '.join(map(str, epochs))} epochs" if len(epochs) > 1 else ""
    return Verdict(
        f"Batch norm keeps the activations spread whatever the initial weights, {when}",
        graded(all(norm.values()), sum(norm.values()) > sum(plain.values())),
        f"A network is spread where in every layer {ENOUGH:.0%} of the units are alive (mean over seeds){at}. "
        "Holds where all with batch norm are, depends where more are with it than without.",
        f"{sum(norm.values())} of {len(norm)} with batch norm, {sum(plain.values())} without"
        + (f"; not {missing} with it." if missing else "."),
    )


def _by_scale(alive: dict[Key, float], epoch: int) -> Verdict:
    plain = _spread(alive, False, [epoch])
    made = {key: ok for key, ok in plain.items() if MADE_FOR[key[0]] == key[1]}
    fixed = {key: ok for key, ok in plain.items() if key[1] not in MADE_FOR.values()}
    good = ", ".join(f"{a} from {i}" for (a, i), ok in plain.items() if ok) or "none"
    return Verdict(
        "Without batch norm, the initial weights made for an activation keep it spread, and fixed ones do not",
        graded(all(made.values()) and not any(fixed.values()), any(made.values())),
        "holds where Xavier's for sigmoid and tanh and He's for ReLU are spread, as above, before training and the "
        "fixed scales are not; depends where some of the former are.",
        f"Spread without batch norm: {good}.",
    )
