"""What the records of the overfitting experiment show: charts, tables and verdicts."""

import statistics

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.findings import (
    KINDS,
    Chart,
    Findings,
    Panel,
    Row,
    Table,
    Verdict,
    diverged,
    graded,
    is_published,
    last,
    line,
    lines,
    mean,
    row,
    where,
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
        of_case = where(records, case=case)
        curves = [line("train", "fourth", of_case, "epoch", "train"), line("test", "third", of_case, "epoch", "test")]
        if of_case[0]["batch_norm"]:
            curves.append(line("test, statistics estimated anew", "fifth", of_case, "epoch", "test_anew"))
        panels.append(Panel(case, tuple(curves)))
    courses = Chart("Accuracy as training goes", "epoch", "accuracy", tuple(panels), y_range=(0.0, 1.0))
    searched = where(records, search=True)
    cells = [
        Panel(f"initial weights {init}, batch {size}", lines(where(searched, init=init, batch_size=size), "lr", "test"))
        for init, size in dict.fromkeys((r["init"], r["batch_size"]) for r in searched)
    ]
    title = "The search: test accuracy at the end"
    search = Chart(title, "learning rate", "test accuracy", tuple(cells), columns=3, log_x=True, y_range=(0.0, 1.0))
    return courses, search


def _final(records: list[Record], case: str) -> list[Record]:
    return last(where(records, case=case), "epoch")


def _gaps(records: list[Record]) -> list[float]:
    return [r["train"] - r["test"] for r in records]


def _table(records: list[Record], published: bool) -> Table:
    rows: list[Row] = []
    for case in CASES:
        final = _final(records, case)
        figures = PUBLISHED.get(case, (None,) * 3) if published else (None,) * 3
        values = [r["train"] for r in final], [r["test"] for r in final], _gaps(final)
        for kind, measured, figure in zip(("train", "test", "gap"), values, figures, strict=True):
            rows.append(row((case,), kind, measured, figure, diverged(final) if kind == "train" else ""))
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
    return "no" if mean(norm, "test") <= mean(plain, "test") and gaps[0] >= gaps[1] else "unclear"


def _at_published(records: list[Record]) -> Verdict:
    plain = _final(records, PLAIN)
    better = [_better(_final(records, case), plain) for case in (NORM, NORM_HIGH)]
    gaps = [statistics.mean(_gaps(_final(records, case))) for case in (PLAIN, NORM, NORM_HIGH)]
    tests = [mean(_final(records, case), "test") for case in (PLAIN, NORM, NORM_HIGH)]
    return Verdict(
        "Batch norm suppresses overfitting, in the tutorial's setting",
        graded(set(better) == {"yes"}, set(better) != {"no"}),
        "holds where at both learning rates batch norm's test accuracy is above the plain one in every seed and the "
        "gap to the training accuracy smaller; does not hold where at both neither mean is better.",
        f"Test accuracy {tests[0]:.3f} plain, {tests[1]:.3f} with batch norm, {tests[2]:.3f} at the high learning "
        f"rate; gap {gaps[0]:.3f}, {gaps[1]:.3f}, {gaps[2]:.3f}.",
    )


def _running(records: list[Record]) -> Verdict:
    lost = mean(_final(records, PLAIN), "test") - mean(_final(records, NORM), "test")
    won = mean(_final(records, NORM), "test_anew") - mean(_final(records, NORM), "test")
    share = won / lost if lost > 0 else 0.0
    return Verdict(
        "What batch norm loses on the test images is the error of its running statistics",
        graded(share >= HALF, share >= HALF / 2),
        f"holds where statistics estimated anew over the training rows win back {HALF:.0%} of the difference to the "
        f"plain network's test accuracy, depends from {HALF / 2:.0%} on.",
        f"Batch norm is {lost:.3f} behind; they win back {won:+.3f}."
        if lost > 0
        else f"Nothing was lost: batch norm is {-lost:.3f} ahead.",
    )


def _dropout(records: list[Record]) -> Verdict:
    final = _final(records, NORM_DROPOUT)
    won = [r["test_anew"] - r["test"] for r in final]
    return Verdict(
        "Beside dropout the running statistics are in error, for they are those of dropped values (Li et al. 2019)",
        graded(min(won) > 0, statistics.mean(won) > 0),
        "holds where statistics estimated anew, without dropout, give a better test accuracy in every seed, depends "
        "where in the mean.",
        f"Test accuracy {mean(final, 'test'):.3f} by the running statistics, {mean(final, 'test_anew'):.3f} by those "
        f"estimated anew.",
    )


def _noise(records: list[Record]) -> Verdict:
    pairs = [(_final(records, a), _final(records, b)) for a, b in ((NORM, ALL), (NORM_HIGH, ALL_HIGH))]
    above = [min(r["test"] for r in noisy) > max(r["test"] for r in exact) for noisy, exact in pairs]
    below = [mean(noisy, "test") <= mean(exact, "test") for noisy, exact in pairs]
    text = "; ".join(f"{mean(noisy, 'test'):.3f} against {mean(exact, 'test'):.3f}" for noisy, exact in pairs)
    return Verdict(
        "The noise of the batch's statistics regularizes",
        graded(all(above), not all(below)),
        "holds where at both learning rates the test accuracy in every seed is above that of networks which take their "
        "statistics from all rows; does not hold where at neither the mean is above.",
        f"Test accuracy with the batch's statistics and with those of all rows: {text}.",
    )


def _search(records: list[Record]) -> Verdict:
    learnt = {
        setting: kinds
        for setting, kinds in _cells(records).items()
        if min(mean(k, "train") for k in kinds.values()) >= LEARNT
    }
    wins = [s for s, kinds in learnt.items() if _better(kinds[True], kinds[False]) == "yes"]
    best = {
        kind: max((kinds[kind] for kinds in _cells(records).values()), key=lambda cell: mean(cell, "test"))
        for kind in (False, True)
    }
    above = min(r["test"] for r in best[True]) > max(r["test"] for r in best[False])
    described = {
        kind: f"{mean(cell, 'test'):.3f} (initial weights {cell[0]['init']}, lr {cell[0]['lr']:g}, batch "
        f"{cell[0]['batch_size']})"
        for kind, cell in best.items()
    }
    listed = "; ".join(f"initial weights {i}, lr {lr}, batch {size}" for i, lr, size in wins) or "none"
    return Verdict(
        "There is a setting in which batch norm suppresses overfitting",
        graded(above, bool(wins)),
        f"holds where the best test accuracy with batch norm, over the search, is above the best plain one in every "
        f"seed; depends where it is so only between networks of one setting that both reach {LEARNT} on the training "
        f"rows, with a smaller gap. Either best is chosen by the test images.",
        f"Best with batch norm {described[True]}, plain {described[False]}; at the same setting better in "
        f"{len(wins)} of {len(learnt)}: {listed}.",
    )
