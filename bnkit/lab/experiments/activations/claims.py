"""What the records of the activations experiment show: histograms, a table of living units, verdicts."""

import statistics
from typing import TYPE_CHECKING

import numpy as np

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.activations.settings import EDGES, Settings
from bnkit.lab.experiments.drawing import DENSE, draw
from bnkit.lab.experiments.findings import KINDS, Bars, Chart, Findings, Panel, Table, Verdict, line, row
from bnkit.lab.experiments.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    found = [_course(records)]
    for activation in dict.fromkeys(r["activation"] for r in records):
        for epoch in (min(r["epoch"] for r in records), max(r["epoch"] for r in records)):
            own = [r for r in records if (r["activation"], r["epoch"]) == (activation, epoch)]
            layers = sorted({r["layer"] for r in own})
            panels = [
                _panel([r for r in own if (r["init"], r["layer"]) == (init, layer)], init, layer)
                for init in dict.fromkeys(r["init"] for r in own)
                for layer in layers
            ]
            title = f"{activation}, " + ("before training" if epoch == 0 else f"after {epoch} epochs")
            found.append(Chart(title, "activation", "share of values", tuple(panels), columns=len(layers)))
    return tuple(found)


def plot(records: list[Record]) -> "Figure":
    """The course, and below it a line for each activation: before training beside the end."""
    course, *histograms = charts(records)
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
            tuple(line(KINDS[kind], KINDS[kind], own, "epoch", "alive") for kind, own in kinds.items()),
        )
        for (activation, init), kinds in networks.items()
    )
    title = "Units alive in the layer with fewest; mean of the seeds, the band spans them"
    return Chart(title, "epochs", "share of units", panels, y_range=(0.0, 1.0))


def _panel(own: list[Record], init: str | float, layer: int) -> Panel:
    bars = []
    for kind in (True, False):
        counts = np.sum([r["counts"] for r in own if r["batch_norm"] == kind], axis=0)
        edges = np.linspace(*EDGES[own[0]["activation"]], len(counts) + 1)
        bars.append(Bars(KINDS[kind], KINDS[kind], tuple(edges.tolist()), tuple((counts / counts.sum()).tolist())))
    return Panel(f"{init}, layer {layer}", tuple(bars))


Key = tuple[str, str, bool, int]  # activation, init, batch norm, epoch


def _key(r: Record) -> Key:
    return r["activation"], str(r["init"]), r["batch_norm"], r["epoch"]


def _by_network(records: list[Record]) -> dict[Key, dict[int, float]]:
    """By seed, the share of living units in the layer that has fewest."""
    found: dict[Key, dict[int, float]] = {}
    for r in records:
        seeds = found.setdefault(_key(r), {})
        seeds[r["seed"]] = min(seeds.get(r["seed"], 1.0), r["alive"])
    return found


def _living(records: list[Record]) -> Table:
    last, rows = max(r["epoch"] for r in records), []
    for (activation, init, kind, epoch), own in _by_network(records).items():
        if epoch not in (0, last):
            continue
        when = "before" if epoch == 0 else "after"
        rows.append(row((activation, init), f"{KINDS[kind]}, {when}", list(own.values())))
    title = "share of units alive in the layer with fewest, before and after training"
    return Table(title, ("activation", "initial weights"), tuple(rows), "", 0.0)


def _accuracies(records: list[Record]) -> Table:
    last = max(r["epoch"] for r in records)
    rows = []
    for activation, init, kind, epoch in _by_network(records):
        if epoch == last:
            own = [r for r in records if r["layer"] == 1 and _key(r) == (activation, init, kind, epoch)]
            rows.append(row((activation, init), KINDS[kind], [r["accuracy"] for r in own]))
    title = f"accuracy on the training images after {last} epochs"
    return Table(title, ("activation", "initial weights"), tuple(rows), "", 0.0)


def _spread(alive: dict[Key, float], kind: bool, epochs: list[int]) -> dict[tuple[str, str], bool]:
    """Of each activation and init, whether the networks are spread at all these epochs."""
    found: dict[tuple[str, str], bool] = {}
    for key, share in alive.items():
        if key[2] == kind and key[3] in epochs:
            found[key[:2]] = found.get(key[:2], True) and share >= ENOUGH
    return found


def _by_batch_norm(alive: dict[Key, float], epochs: list[int], when: str) -> Verdict:
    norm, plain = (_spread(alive, kind, epochs) for kind in (True, False))
    missing = ", ".join(f"{a} from {i}" for (a, i), ok in norm.items() if not ok)
    at = f", after each of {', '.join(map(str, epochs))} epochs" if len(epochs) > 1 else ""
    return Verdict(
        f"Batch norm keeps the activations spread whatever the initial weights, {when}",
        "holds" if all(norm.values()) else "depends" if sum(norm.values()) > sum(plain.values()) else "does not hold",
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
        "holds"
        if all(made.values()) and not any(fixed.values())
        else "depends"
        if any(made.values())
        else "does not hold",
        "holds where Xavier's for sigmoid and tanh and He's for ReLU are spread, as above, before training and the "
        "fixed scales are not; depends where some of the former are.",
        f"Spread without batch norm: {good}.",
    )
