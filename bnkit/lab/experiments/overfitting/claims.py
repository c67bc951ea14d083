"""What the records of the overfitting experiment show: charts, tables and verdicts."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.drawing import draw
from bnkit.lab.experiments.findings import (
    KINDS,
    Chart,
    Findings,
    Panel,
    Row,
    Table,
    Verdict,
    diverged,
    is_published,
    line,
    row,
)
from bnkit.lab.experiments.overfitting.settings import (
    ALL,
    ALL_HIGH,
    CASES,
    DECAY,
    DROPOUT,
    NORM,
    NORM_DROPOUT,
    NORM_HIGH,
    PLAIN,
    Settings,
)
from bnkit.lab.experiments.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = "the tutorial's own code, mean of 3 seeds"
# Accuracy at the last epoch: train, test, and the gap between them.
PUBLISHED = {
    PLAIN: (1.000, 0.759, 0.241),
    DROPOUT: (0.637, 0.509, 0.127),
    DECAY: (0.880, 0.712, 0.168),
    NORM: (1.000, 0.594, 0.406),
    NORM_HIGH: (1.000, 0.698, 0.302),
    NORM_DROPOUT: (0.973, 0.717, 0.257),
}
TOLERANCE = 0.03  # three seeds of one setting differ by up to as much
LEARNT = 0.95  # the mean accuracy on the training rows from which a network can be said to overfit
HALF = 0.5


def findings(records: list[Record], settings: Settings) -> Findings:
    verdicts = (_at_published(records), _running(records), _dropout(records), _noise(records), _search(records))
    tables = (_table(records, is_published(settings)), _statistics(records), _searched(records))
    return Findings(QUESTIONS["overfitting"], charts(records), tables, verdicts)


def charts(records: list[Record]) -> tuple[Chart, ...]:
    """Train and test accuracy against epochs, one panel a case; and the search's test accuracy by learning rate."""
    panels = []
    for case in CASES:
        own = [r for r in records if r["case"] == case]
        lines = [line("train", "fourth", own, "epoch", "train"), line("test", "third", own, "epoch", "test")]
        if own[0]["batch_norm"]:
            lines.append(line("test, statistics estimated anew", "fifth", own, "epoch", "test_anew"))
        panels.append(Panel(case, tuple(lines)))
    courses = Chart("Accuracy as training goes", "epoch", "accuracy", tuple(panels), y_range=(0.0, 1.0))
    found = [r for r in records if r["search"]]
    cells = []
    for init, size in dict.fromkeys((r["init"], r["batch_size"]) for r in found):
        own = [r for r in found if (r["init"], r["batch_size"]) == (init, size)]
        both = [(KINDS[norm], [r for r in own if r["batch_norm"] == norm]) for norm in (True, False)]
        kinds = [line(name, name, of_kind, "lr", "test") for name, of_kind in both]
        cells.append(Panel(f"initial weights {init}, batch {size}", tuple(kinds)))
    title = "The search: test accuracy at the end"
    search = Chart(title, "learning rate", "test accuracy", tuple(cells), columns=3, log_x=True, y_range=(0.0, 1.0))
    return courses, search


def plot(records: list[Record]) -> "Figure":
    return draw(charts(records))


def _final(records: list[Record], case: str) -> list[Record]:
    own = [r for r in records if r["case"] == case]
    last = max(r["epoch"] for r in own)
    return [r for r in own if r["epoch"] == last]


def _gaps(own: list[Record]) -> list[float]:
    return [r["train"] - r["test"] for r in own]


def _table(records: list[Record], published: bool) -> Table:
    rows: list[Row] = []
    for case in CASES:
        own = _final(records, case)
        figures = PUBLISHED.get(case, (None,) * 3) if published else (None,) * 3
        values = [r["train"] for r in own], [r["test"] for r in own], _gaps(own)
        for kind, measured, figure in zip(("train", "test", "gap"), values, figures, strict=True):
            rows.append(row((case,), kind, measured, figure, diverged(own) if kind == "train" else ""))
    return Table("accuracy at the end", ("setting",), tuple(rows), SOURCE, TOLERANCE)


def _statistics(records: list[Record]) -> Table:
    kinds = {"test": "running", "test_anew": "of all training rows", "test_one_batch": "of one batch"}
    rows = [
        row((case,), kind, [r[name] for r in _final(records, case)])
        for case in CASES
        if _final(records, case)[0]["batch_norm"]
        for name, kind in kinds.items()
    ]
    return Table("test accuracy by the statistics used in inference", ("setting",), tuple(rows), "", TOLERANCE)


def _cells(records: list[Record]) -> dict[tuple[str, str, str], dict[bool, list[Record]]]:
    """The search's records by initial weights, learning rate and batch size, without and with batch norm."""
    cells: dict[tuple[str, str, str], dict[bool, list[Record]]] = {}
    for r in records:
        if r["search"]:
            key = str(r["init"]), f"{r['lr']:g}", str(r["batch_size"])
            cells.setdefault(key, {False: [], True: []})[r["batch_norm"]].append(r)
    return cells


def _searched(records: list[Record]) -> Table:
    rows = []
    for setting, kinds in _cells(records).items():
        for norm, name in KINDS.items():
            tests = [r["test"] for r in kinds[norm]]
            rows.append(row(setting, f"{name}, test", tests, note=diverged(kinds[norm])))
            rows.append(row(setting, f"{name}, gap", _gaps(kinds[norm])))
    return Table("the search, at the end", ("initial weights", "lr", "batch"), tuple(rows), "", TOLERANCE)


def _better(norm: list[Record], plain: list[Record]) -> str:
    """Whether batch norm's test accuracy is above in every seed and its mean gap smaller: yes, no or unclear."""
    above = min(r["test"] for r in norm) > max(r["test"] for r in plain)
    gaps = statistics.mean(_gaps(norm)), statistics.mean(_gaps(plain))
    if above and gaps[0] < gaps[1]:
        return "yes"
    return "no" if _mean(norm, "test") <= _mean(plain, "test") and gaps[0] >= gaps[1] else "unclear"


def _mean(own: Sequence[Record], name: str) -> float:
    return float(statistics.mean(r[name] for r in own))


def _at_published(records: list[Record]) -> Verdict:
    plain = _final(records, PLAIN)
    found = [_better(_final(records, case), plain) for case in (NORM, NORM_HIGH)]
    gaps = [statistics.mean(_gaps(_final(records, case))) for case in (PLAIN, NORM, NORM_HIGH)]
    tests = [_mean(_final(records, case), "test") for case in (PLAIN, NORM, NORM_HIGH)]
    return Verdict(
        "Batch norm suppresses overfitting, in the tutorial's setting",
        "holds" if set(found) == {"yes"} else "does not hold" if set(found) == {"no"} else "depends",
        "holds where at both learning rates batch norm's test accuracy is above the plain one in every seed and the "
        "gap to the training accuracy smaller; does not hold where at both neither mean is better.",
        f"Test accuracy {tests[0]:.3f} plain, {tests[1]:.3f} with batch norm, {tests[2]:.3f} at the high learning "
        f"rate; gap {gaps[0]:.3f}, {gaps[1]:.3f}, {gaps[2]:.3f}.",
    )


def _running(records: list[Record]) -> Verdict:
    lost = _mean(_final(records, PLAIN), "test") - _mean(_final(records, NORM), "test")
    won = _mean(_final(records, NORM), "test_anew") - _mean(_final(records, NORM), "test")
    share = won / lost if lost > 0 else 0.0
    return Verdict(
        "What batch norm loses on the test images is the error of its running statistics",
        "holds" if share >= HALF else "depends" if share >= HALF / 2 else "does not hold",
        f"holds where statistics estimated anew over the training rows win back {HALF:.0%} of the difference to the "
        f"plain network's test accuracy, depends from {HALF / 2:.0%} on.",
        f"Batch norm is {lost:.3f} behind; they win back {won:+.3f}."
        if lost > 0
        else f"Nothing was lost: batch norm is {-lost:.3f} ahead.",
    )


def _dropout(records: list[Record]) -> Verdict:
    own = _final(records, NORM_DROPOUT)
    won = [r["test_anew"] - r["test"] for r in own]
    return Verdict(
        "Beside dropout the running statistics are in error, for they are those of dropped values (Li et al. 2019)",
        "holds" if min(won) > 0 else "depends" if statistics.mean(won) > 0 else "does not hold",
        "holds where statistics estimated anew, without dropout, give a better test accuracy in every seed, depends "
        "where in the mean.",
        f"Test accuracy {_mean(own, 'test'):.3f} by the running statistics, {_mean(own, 'test_anew'):.3f} by those "
        f"estimated anew.",
    )


def _noise(records: list[Record]) -> Verdict:
    pairs = [(_final(records, a), _final(records, b)) for a, b in ((NORM, ALL), (NORM_HIGH, ALL_HIGH))]
    above = [min(r["test"] for r in noisy) > max(r["test"] for r in exact) for noisy, exact in pairs]
    below = [_mean(noisy, "test") <= _mean(exact, "test") for noisy, exact in pairs]
    text = "; ".join(f"{_mean(noisy, 'test'):.3f} against {_mean(exact, 'test'):.3f}" for noisy, exact in pairs)
    return Verdict(
        "The noise of the batch's statistics regularizes",
        "holds" if all(above) else "does not hold" if all(below) else "depends",
        "holds where at both learning rates the test accuracy in every seed is above that of networks which take their "
        "statistics from all rows; does not hold where at neither the mean is above.",
        f"Test accuracy with the batch's statistics and with those of all rows: {text}.",
    )


def _search(records: list[Record]) -> Verdict:
    learnt = {
        setting: kinds
        for setting, kinds in _cells(records).items()
        if min(_mean(k, "train") for k in kinds.values()) >= LEARNT
    }
    wins = [s for s, kinds in learnt.items() if _better(kinds[True], kinds[False]) == "yes"]
    best = {
        kind: max((kinds[kind] for kinds in _cells(records).values()), key=lambda own: _mean(own, "test"))
        for kind in (False, True)
    }
    above = min(r["test"] for r in best[True]) > max(r["test"] for r in best[False])
    described = {
        kind: f"{_mean(own, 'test'):.3f} (initial weights {own[0]['init']}, lr {own[0]['lr']:g}, batch "
        f"{own[0]['batch_size']})"
        for kind, own in best.items()
    }
    listed = "; ".join(f"initial weights {i}, lr {lr}, batch {size}" for i, lr, size in wins) or "none"
    return Verdict(
        "There is a setting in which batch norm suppresses overfitting",
        "holds" if above else "depends" if wins else "does not hold",
        f"holds where the best test accuracy with batch norm, over the search, is above the best plain one in every "
        f"seed; depends where it is so only between networks of one setting that both reach {LEARNT} on the training "
        f"rows, with a smaller gap. Either best is chosen by the test images.",
        f"Best with batch norm {described[True]}, plain {described[False]}; at the same setting better in "
        f"{len(wins)} of {len(learnt)}: {listed}.",
    )
