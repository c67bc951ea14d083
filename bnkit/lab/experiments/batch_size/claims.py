"""What the records of the batch-size experiment show: charts, tables and verdicts."""

import statistics
from collections.abc import Sequence

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.batch_size.settings import GHOST, NORM, OWN, PLAIN, SHARED, Settings
from bnkit.lab.experiments.findings import (
    Chart,
    Findings,
    Line,
    Panel,
    Table,
    Verdict,
    diverged,
    graded,
    line,
    mean,
    row,
    where,
)
from bnkit.lab.experiments.records import Record

STYLES = {PLAIN: "plain", NORM: "batch norm", GHOST: "third", SHARED: "fourth", OWN: "fifth"}
SAME = 0.01  # accuracies that differ by less are the same
NEAR = 0.1  # of 1, in which the noise times √rows may lie


def findings(records: list[Record], settings: Settings) -> Findings:
    verdicts = (_law(records), _small(records), _running(records), _ghosts(records), _ranks(records))
    return Findings(QUESTIONS["batch-size"], charts(records), (_table(records), _noises(records)), verdicts)


def charts(records: list[Record]) -> tuple[Chart, ...]:
    by_batch = [_line(records, kind, "batch", "test") for kind in (NORM, PLAIN, SHARED, OWN)]
    by_ghost = [_line(records, GHOST, "counted", "test")]
    estimated = [
        _line(records, NORM, "batch", "test"),
        _line(records, NORM, "batch", "test_anew", "statistics estimated anew", "sixth"),
    ]
    largest = max(r["batch"] for r in records)
    accuracy = Chart(
        "Test accuracy, all having seen as many rows",
        "rows of a batch, or of a ghost batch",
        "test accuracy",
        (
            Panel("by the batch", tuple(by_batch)),
            Panel("running statistics or estimated anew", tuple(estimated)),
            Panel(f"ghost batches, in a batch of {largest}", tuple(by_ghost)),
        ),
        log_x=True,
    )
    noise = Chart(
        "Noise of the statistics",
        "rows that they are of",
        "relative noise",
        (
            Panel("of the mean", (_line(records, NORM, "batch", "mean_noise"),)),
            Panel("of the variance", (_line(records, NORM, "batch", "var_noise"),)),
        ),
        log_x=True,
    )
    return accuracy, noise


def _line(records: list[Record], kind: str, x: str, y: str, label: str = "", style: str = "") -> Line:
    return line(label or kind, style or STYLES[kind], where(records, kind=kind), x, y)


def _table(records: list[Record]) -> Table:
    """Test accuracy by the rows of a batch; ghost batches by theirs, in the largest batch."""
    rows = []
    for size in sorted({r["counted"] for r in records} | {r["batch"] for r in records}):
        for kind in STYLES:
            of_size = _of(records, kind, size)
            if of_size:
                rows.append(row((str(size),), kind, [r["test"] for r in of_size], note=diverged(of_size)))
                if kind == NORM:
                    rows.append(row((str(size),), "its statistics anew", [r["test_anew"] for r in of_size]))
    return Table("test accuracy by the rows of a batch, or of a ghost batch", ("rows",), tuple(rows), "", SAME)


def _noises(records: list[Record]) -> Table:
    rows = []
    for size, of_size in _by_size(records, NORM).items():
        for kind, values in (
            ("mean", _known(of_size, "mean_noise")),
            ("mean × √rows", [noise * size**0.5 for noise in _known(of_size, "mean_noise")]),
            ("variance", _known(of_size, "var_noise")),
        ):
            if values:
                rows.append(row((str(size),), kind, values))
    return Table("noise of batch norm's statistics", ("rows",), tuple(rows), "", 0.0)


def _known(records: Sequence[Record], name: str) -> list[float]:
    """The values of the networks that did not diverge."""
    return [r[name] for r in records if r[name] is not None]


def _test(records: Sequence[Record]) -> float:
    return mean(records, "test")


def _of(records: list[Record], kind: str, size: int) -> list[Record]:
    """Of a kind, by the rows of a batch, or of a ghost batch."""
    return where(records, **{"kind": kind, "counted" if kind == GHOST else "batch": size})


def _by_size(records: list[Record], kind: str) -> dict[int, list[Record]]:
    sizes = sorted({r["counted" if kind == GHOST else "batch"] for r in records if r["kind"] == kind})
    return {size: _of(records, kind, size) for size in sizes}


def _law(records: list[Record]) -> Verdict:
    noises = {size: _known(of_size, "mean_noise") for size, of_size in _by_size(records, NORM).items()}
    scaled = {size: statistics.mean(noise) * size**0.5 for size, noise in noises.items() if noise}
    near = [size for size, value in scaled.items() if abs(value - 1) <= NEAR]
    reason = "All networks diverged."
    if scaled:
        reason = f"From {min(scaled.values()):.3f} to {max(scaled.values()):.3f} over the batch sizes."
    return Verdict(
        "The noise of the batch's mean is a standard deviation over √rows",
        graded(len(near) == len(noises), bool(near)),
        f"holds where noise times √rows is within {NEAR} of 1 at every batch size, depends where at some; of networks "
        "that did not diverge.",
        reason,
    )


def _small(records: list[Record]) -> Verdict:
    norm, plain = _by_size(records, NORM), _by_size(records, PLAIN)
    smallest = min(norm)
    best = max(norm, key=lambda size: _test(norm[size]))
    lost = {kind: _test(sizes[best]) - _test(sizes[smallest]) for kind, sizes in ((NORM, norm), (PLAIN, plain))}
    below = max(r["test"] for r in norm[smallest]) < min(r["test"] for r in norm[best])
    more = lost[NORM] - max(lost[PLAIN], 0) > SAME
    return Verdict(
        "Batch norm loses accuracy at small batches",
        graded(below and more, below),
        f"holds where its test accuracy at the smallest batch is below that at its best batch in every seed, by {SAME} "
        f"more than the plain network loses; depends where below, but not by more.",
        f"From a batch of {best} to one of {smallest}: {_test(norm[best]):.3f} to {_test(norm[smallest]):.3f} with "
        f"batch norm, {_test(plain[best]):.3f} to {_test(plain[smallest]):.3f} plain.",
    )


def _running(records: list[Record]) -> Verdict:
    norm = _by_size(records, NORM)
    smallest = min(norm)
    best = max(norm, key=lambda size: _test(norm[size]))
    lost = _test(norm[best]) - _test(norm[smallest])
    won = mean(norm[smallest], "test_anew") - _test(norm[smallest])
    share = won / lost if lost > 0 else 0.0
    taken = f"they take {_test(norm[smallest]):.3f} to {mean(norm[smallest], 'test_anew'):.3f}"
    return Verdict(
        "What it loses there is the error of the running statistics",
        graded(share >= 0.5, share >= 0.25),
        "holds where statistics of all training rows win back half of the loss at the smallest batch, depends from a "
        "quarter on.",
        f"At a batch of {smallest} {taken}; the best is {_test(norm[best]):.3f}."
        if lost > 0
        else f"Nothing was lost: a batch of {smallest} is the best.",
    )


def _ghosts(records: list[Record]) -> Verdict:
    ghosts = _by_size(records, GHOST)
    whole = _of(records, NORM, max(r["batch"] for r in records))
    best = max(ghosts, key=lambda size: _test(ghosts[size]))
    above = min(r["test"] for r in ghosts[best]) > max(r["test"] for r in whole)
    better = _test(ghosts[best]) > max(r["test"] for r in whole)
    return Verdict(
        "In a large batch, statistics of smaller ghost batches generalize better (Hoffer, Hubara & Soudry 2017)",
        graded(above, better),
        "holds where at the best ghost size the test accuracy in every seed is above every one of the whole batch's "
        "statistics, depends where only the mean is.",
        f"Ghost batches of {best} reach {_test(ghosts[best]):.3f}, the whole batch {_test(whole):.3f}.",
    )


def _ranks(records: list[Record]) -> Verdict:
    shared, separate = _by_size(records, SHARED), _by_size(records, OWN)
    to_whole = {size: abs(_test(ranks) - _test(_of(records, NORM, size))) for size, ranks in shared.items()}
    close = [size for size, difference in to_whole.items() if difference <= SAME]
    numbers = "; ".join(
        f"{size}: {_test(_of(records, NORM, size)):.3f} in one, {_test(ranks):.3f} shared, "
        f"{_test(separate[size]):.3f} own"
        for size, ranks in shared.items()
    )
    return Verdict(
        "Two ranks that share their statistics are one batch of their rows together",
        graded(len(close) == len(shared), bool(close)),
        f"holds where the mean test accuracies differ by at most {SAME} at every batch size, depends where at some.",
        f"Test accuracy by the rows of both: {numbers}.",
    )
