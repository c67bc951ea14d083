"""Findings of made-up numbers, in every shape that a report has to show, and record files that give them."""

import dataclasses
import datetime
import json
import math
import random
from types import SimpleNamespace

from bnkit.lab import report
from bnkit.lab.experiments.findings import STYLES, Bars, Chart, Findings, Line, Panel, Row, Table, Verdict
from bnkit.lab.report import Experiment

HOSTILE = """</script><img src=x onerror="alert('1')">&amp; 'a' "b" ]]> <!-- \u2028"""
DATE = datetime.date(2026, 11, 30)
MACHINE = {"system": "Linux x86_64", "processor": "AMD EPYC", "device": "CPU, 2 cores", "threads": 2, "simd": None}
VERSIONS = {"bnkit": "0.1.0", "python": "3.11.7", "numpy": "2.4.6"}
SETTINGS = {
    "data": "mnist", "data_dir": None, "seeds": 3, "hidden": [100] * 5, "lr": 0.01, "eps": 1e-6,
    "scales": [10 ** (-4 * i / 15) for i in range(16)], "quick": False,
}  # fmt: skip
VERDICT = Verdict(
    "Batch norm makes learning less dependent on the initial weights.",
    "depends",
    "holds where batch norm learns (at least .85) at four times as many scales as plain does",
    "At least .85 at 8 of 16 scales with batch norm, at 2 without; at .293 plain is ahead.",
)


def curve(draw, points, *, to, runs=3, gaps=False):
    """Runs that go up to about `to`; with gaps, each but the first ends early."""
    values = {}
    for run in range(runs):
        speed, noise = 3 + 2 * draw.random(), 0.03
        rising = [
            to * (1 - math.exp(-speed * i / points)) + noise * (draw.random() - 0.5) for i in range(1, points + 1)
        ]
        last = points // 2 if gaps and run else points
        values[f"seed {run}"] = tuple(v if i < last else None for i, v in enumerate(rising))
    return values


def weight_scale(*, panels=16, points=20, runs=3, seed=0):
    """Small multiples with a common y axis, and the table with two kinds a setting."""
    draw = random.Random(seed)
    shown, rows = [], []
    for i in range(panels):
        scale = f"{10 ** (-4 * i / 15):.3g}"
        lines, x = [], tuple(range(1, points + 1))
        for kind in ("plain", "batch norm"):
            to = draw.random()
            values = curve(draw, points, to=to, runs=runs, gaps=kind == "plain" and i == 1)
            lines.append(Line(kind, kind, x, values))
            last = [v[-1] for v in values.values() if v[-1] is not None]
            published = round(last[0], 3) + (0.2 if i % 5 == 3 else 0)
            note = "2 of 3 diverged" if len(last) < runs else ""
            rows.append(Row((scale,), kind, round(published, 3), sum(last) / len(last), min(last), max(last), note))
        shown.append(Panel(f"W = {scale}", tuple(lines), "plain: 2 of 3 diverged" if i == 1 else ""))
    chart = Chart(
        "Accuracy against epochs, a panel for each scale of the initial weights", "epoch",
        "accuracy on the training images", tuple(shown), y_range=(0, 1),
    )  # fmt: skip
    table = Table("Accuracy at the last epoch", ("W",), tuple(rows), "the tutorial's own code, mean of 3 seeds", 0.02)
    return Findings(
        "Does batch norm make learning less dependent on the initial weights?", (chart,), (table,), (VERDICT,)
    )


def learning_rate(*, points=60, seed=1):
    """A logarithmic x axis, two settings a row of the table, long numbers, each panel its own y range."""
    draw = random.Random(seed)
    panels, rows = [], []
    x = tuple(round(10 * 5000 ** (i / (points - 1))) for i in range(points))
    for std in (0.05, 5):
        for lr in (0.01, 1, 2):
            for activation in ("ReLU", "sigmoid"):
                kinds = {kind: curve(draw, points, to=0.5 + 0.5 * draw.random()) for kind in ("plain", "batch norm")}
                panels.append(
                    Panel(f"{activation}, std {std}, lr {lr}", tuple(Line(k, k, x, v) for k, v in kinds.items()))
                )
                for kind, values in kinds.items():
                    last = [v[-1] for v in values.values()]
                    row = Row((activation, str(std), str(lr)), kind, 0.9748, sum(last) / 3, min(last), max(last))
                    rows.append(row)
    chart = Chart("Test accuracy against steps", "step", "test accuracy", tuple(panels), columns=4, log_x=True)
    other = Chart(
        "The 15th, 50th and 85th percentile of one input of the last hidden layer, as training goes", "step", "value",
        tuple(
            Panel(kind, tuple(Line(f"{p} %", s, x, {"seed 0": curve(draw, points, to=to, runs=1)["seed 0"]})
                              for p, s, to in ((15, "third", -2), (50, "batch norm", 0.4), (85, "fifth", 3))))
            for kind in ("plain", "batch norm")
        ),
        columns=2, log_x=True,
    )  # fmt: skip
    table = Table("Test accuracy after 50,000 steps", ("activation", "W std", "lr"), tuple(rows), "the lesson", 0.01)
    verdict = dataclasses.replace(VERDICT, claim="Batch norm allows larger learning rates.", verdict="holds")
    return Findings("Does batch norm let training go faster?", (chart, other), (table,), (verdict,))


def overfitting(*, seed=2):
    """One wide panel with all six styles, a table without published figures for one kind, a long note."""
    draw = random.Random(seed)
    x = tuple(range(0, 301, 5))
    labels = ("batch norm", "none", "dropout .2", "weight decay .1", "batch norm, lr .1", "batch norm + dropout .2")
    lines = [
        Line(label, style, x, curve(draw, len(x), to=0.4 + 0.1 * i))
        for i, (label, style) in enumerate(zip(labels, STYLES, strict=True))
    ]
    chart = Chart("Test accuracy", "epoch", "test accuracy", (Panel("all methods", tuple(lines)),), columns=1)
    rows = []
    for label in labels:
        rows.append(Row((label,), "train", round(draw.random(), 3), 0.991, 0.99, 0.993))
        rows.append(
            Row((label,), "test", None, 0.7, 0.69, 0.72, "re-estimated over the training set" * (label == "none"))
        )
    table = Table("Accuracy after 301 epochs", ("method",), tuple(rows), "the tutorial's own code", 0.03)
    verdict = dataclasses.replace(VERDICT, claim="Batch norm suppresses overfitting.", verdict="does not hold")
    return Findings("Does batch norm suppress overfitting?", (chart,), (table,), (verdict,))


def activations(*, scales=4, layers=5, bins=50, seed=3):
    """Histograms, many of them."""
    draw = random.Random(seed)
    charts = []
    for activation in ("sigmoid", "tanh", "ReLU"):
        panels = []
        for scale in ("1", "0.01", "Xavier", "He")[:scales]:
            for layer in range(1, layers + 1):
                edges = tuple(round(-1 + 2 * i / bins, 3) for i in range(bins + 1))
                items = []
                for kind in ("plain", "batch norm"):
                    width = 0.1 + draw.random()
                    heights = tuple(
                        math.exp(-(((e + 1 / bins) / width) ** 2)) * 3000 * draw.random() for e in edges[:-1]
                    )
                    items.append(Bars(kind, kind, edges, heights))
                panels.append(Panel(f"{scale}, layer {layer}", tuple(items)))
        charts.append(Chart(f"Activations of {activation}", "activation", "how many", tuple(panels), columns=layers))
    return Findings("What does batch norm do to activations?", tuple(charts), (), (VERDICT,))


def batch_size(*, seed=4):
    """No runs to choose from, values of very different sizes, long labels at the ticks."""
    draw = random.Random(seed)
    x = tuple(2.0**i for i in range(1, 10))
    noise = Line("statistics' noise", "sixth", x, {"all": tuple(3.0 / v + 0.01 * draw.random() for v in x)})
    chart = Chart("Noise", "batch size", "variance of the mean", (Panel("noise", (noise,)),), columns=1, log_x=True)
    decays = tuple(0.97 + 0.00005 * i for i in range(16))
    lines = [Line("plain", "plain", decays, curve(draw, 16, to=to, runs=2)) for to in (1, -30_000)]
    other = Chart("Decay", "decay", "loss", tuple(Panel(f"batch {2 + i}", (line,)) for i, line in enumerate(lines)))
    rows = tuple(Row((f"{v:g}",), "noise", None, 3e5 / v**4, 3e5 / v**4, 4e5 / v**4) for v in x)
    table = Table("Noise of the statistics", ("batch",), rows, "", 0.0)
    return Findings("How does batch norm depend on the size of the batch?", (chart, other), (table,), (VERDICT,))


MADE = {
    "weight-scale": weight_scale,
    "learning-rate": learning_rate,
    "overfitting": overfitting,
    "activations": activations,
    "batch-size": batch_size,
}


def experiment(name, findings=None, *, file=None, settings=SETTINGS):
    made = MADE[name]() if findings is None else findings
    return Experiment(name, file or f"{name.replace('-', '_')}.json", settings, VERSIONS, MACHINE, made)


def full():
    """All five experiments."""
    return [experiment(name) for name in MADE]


def page(experiments):
    """The report's page on a fixed date."""
    return report.page(experiments, date=DATE)


@dataclasses.dataclass(frozen=True)
class Settings:
    data: str = "digits"
    sizes: tuple[int, ...] = (1, 2)


def module(made=weight_scale):
    """An experiment as the registry has it, whose records must have a "value"."""

    def findings(records, settings):
        assert isinstance(settings.sizes, tuple)
        return made(panels=len([record["value"] for record in records]))

    return SimpleNamespace(settings=Settings, findings=findings)


def write_file(path, **changes):
    """A record file for `module`; a part that is set to None is left out."""
    content = {
        "settings": {"data": "mnist", "sizes": [3, 4]},
        "versions": VERSIONS,
        "machine": MACHINE,
        "records": [{"value": 1}, {"value": 2}],
    } | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path
