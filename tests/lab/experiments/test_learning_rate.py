"""The learning-rate experiment: its networks, what a killed run goes on from, its tables and verdicts."""

import dataclasses

import numpy as np
import pytest

import bnkit
from bnkit.lab.experiments import learning_rate
from bnkit.lab.experiments.learning_rate import PAPER, PUBLISHED, Settings
from bnkit.lab.experiments.learning_rate import parts as networks

SMALL = Settings(
    data="synthetic",
    seeds=2,
    epochs=2,
    cells=((0.5, 0.1, "relu"), (0.1, 0.5, "sigmoid"), (0.5, 1.0, "relu")),
    hidden=(6, 5),
    measured=(7, 20),
)
DIVERGING = dataclasses.replace(SMALL, cells=((0.5, 0.1, "relu"), (50.0, 1e30, "relu")), seeds=1)


@pytest.fixture(scope="module")
def records():
    return learning_rate.run(SMALL)


def trained_alone(cell, batch_norm, seed, updates):
    """The network of a cell by the library's plain means."""
    scale, lr, activation = cell
    loaded = bnkit.data.load("synthetic")
    norm = {"decay": 0.99, "eps": 1e-3, "correction": 0} if batch_norm else False
    sizes = (64, *SMALL.hidden, 10)
    model = bnkit.MLP(sizes, batch_norm=norm, activation=activation, bias=not batch_norm, init=scale, seed=seed)
    optimizer = bnkit.optim.SGD(lr=lr)
    each = 1000 // 60
    for step in range(updates):
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, step // each))).permutation(1000)
        rows = order[step % each * 60 :][:60]
        optimizer.update(model.params, model.loss_and_grads(loaded.x_train[rows], loaded.t_train[rows], step=step)[1])
    return model, loaded


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("cell", SMALL.cells, ids=str)
def test_a_network_of_a_group_is_the_network_trained_alone(records, cell, batch_norm):
    model, loaded = trained_alone(cell, batch_norm, 1, 32)
    (found,) = [
        r
        for r in records
        if (r["scale"], r["lr"], r["activation"]) == cell
        and (r["batch_norm"], r["seed"], r["step"]) == (batch_norm, 1, 32)
    ]
    # Products of replicas may be summed in another order: one of the 500 test rows may change sides.
    assert found["accuracy"] == pytest.approx(float(model.accuracy(loaded.x_test, loaded.t_test)), abs=0.0021)
    before = bnkit.Sequential(*model.network.layers[:-2])
    inputs = before.forward(loaded.x_test, train=False)[0][:, 0]
    expected = np.percentile(inputs, (15, 50, 85))
    np.testing.assert_allclose([found[p] for p in ("p15", "p50", "p85")], expected, atol=1e-4)


def test_every_network_is_measured_at_each_number_of_updates_and_at_the_end(records):
    found = [(r["seed"], r["step"], r["batch_norm"], (r["scale"], r["lr"], r["activation"])) for r in records]
    assert len(set(found)) == len(found) == 2 * 3 * 2 * 3
    assert {step for _, step, _, _ in found} == {7, 20, 32}


def test_what_would_be_measured_after_the_end_is_left_out():
    found = learning_rate.run(dataclasses.replace(DIVERGING, epochs=1, measured=(7, 16, 20)))
    assert {r["step"] for r in found} == {7, 16}


def test_a_run_is_the_same_every_time(records):
    assert learning_rate.run(SMALL) == records


class Killed(BaseException):
    pass


def test_a_run_that_is_killed_goes_on_to_the_same_records(records, tmp_path):
    def told(done, total):
        if done > 100:  # of 256
            raise Killed

    with pytest.raises(Killed):
        learning_rate.run(SMALL, checkpoint=tmp_path / "c", on_progress=told)
    anew = []
    assert learning_rate.run(SMALL, checkpoint=tmp_path / "c", on_progress=lambda *n: anew.append(n)) == records
    assert anew[0] == (96, 256), "what was done is not done again"


def left_out(monkeypatch):
    """A list that gets how many networks each group is begun and gone on with."""
    found = []
    make = networks._networks
    monkeypatch.setattr(
        networks, "_networks", lambda *args, **kwargs: found.append(len(args[2])) or make(*args, **kwargs)
    )
    return found


def test_networks_of_nan_are_left_out_and_keep_the_records_that_they_would_have(monkeypatch):
    sizes = left_out(monkeypatch)
    found = learning_rate.run(DIVERGING)
    assert sizes == [2, 1, 2, 1], "both groups go on with one"
    monkeypatch.setattr(networks, "_alive", lambda model: np.ones(model.replicas, bool))
    assert learning_rate.run(DIVERGING) == found
    dead = [r for r in found if r["lr"] == 1e30 and not r["batch_norm"]]
    assert all(r["diverged"] and r["p50"] is None for r in dead)


def test_a_run_whose_networks_are_all_nan_has_their_records_to_the_end(monkeypatch):
    sizes = left_out(monkeypatch)
    found = learning_rate.run(dataclasses.replace(DIVERGING, cells=DIVERGING.cells[1:]))
    assert sizes == [1, 0, 1, 0]
    assert [r["step"] for r in found] == [7, 20, 32] * 2
    assert all(r["diverged"] for r in found)


def test_looks_for_networks_of_nan_change_no_record(records, monkeypatch):
    monkeypatch.setattr(networks, "LOOKED", 4)
    assert learning_rate.run(SMALL) == records


def test_progress_counts_the_updates_of_all_groups():
    told = []
    learning_rate.run(DIVERGING, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (64, 64)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "seeds must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 2000}, "batch_size must be at most the 1000 rows"),
        ({"measured": (0,)}, "measured must be at least 1, got 0"),
        ({"cells": ((0.1, 0.1, "gelu"),)}, "activation must be"),
        ({"cells": ((0.1, -1.0, "relu"),)}, "cells must be a finite number of at least 0, got -1"),
        ({"cells": ((0.1, 1.0),)}, "cells must each be an initial scale, a learning rate and an activation, got"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        learning_rate.run(dataclasses.replace(SMALL, **change))


def test_the_published_tables_are_beside_the_lessons_setting_alone():
    assert len(PUBLISHED) == 12
    settings = Settings(data="mnist", data_dir="somewhere", seeds=1)
    tables = learning_rate.findings(made(settings, lambda *_: 0.5), settings).tables
    assert [len(table.rows) for table in tables] == [24, 6, 2]
    assert all(row.published is not None for table in tables for row in table.rows)
    other = dataclasses.replace(settings, decay=0.9)
    tables = learning_rate.findings(made(other, lambda *_: 0.5), other).tables
    assert all(row.published is None for table in tables for row in table.rows)


def noted(accuracy, setting, kind):
    """The note on a row of the lesson's table at the end, of records of the accuracy(seed, step)."""
    settings = Settings(data="mnist")
    records = made(settings, lambda *_: 0.5)
    records = [r | {"accuracy": accuracy(r["seed"], r["step"])} for r in records]
    rows = learning_rate.findings(records, settings).tables[0].rows
    (found,) = [r for r in rows if (r.setting, r.kind) == (setting, kind)]
    return found.note


@pytest.mark.parametrize(
    ("accuracy", "note"),
    [
        (lambda seed, step: 0.227, ""),
        (lambda seed, step: 0.2369, ""),
        (lambda seed, step: 0.5, ""),
        (lambda seed, step: 0.0980, "it names one digit for every image, and which is chance: 0.0892 to 0.1135"),
        (lambda seed, step: 0.0981, ""),
        (
            lambda seed, step: 0.5 + 0.02 * (seed + 1) * (step == 50_000),
            "still climbing, by 0.020 to 0.060 in the last 6,000 updates",
        ),
        (lambda seed, step: 0.5 + 0.1 * seed, "the seeds lie far apart, and the published figure is one run's"),
    ],
)
def test_a_figure_outside_the_runs_range_is_explained_by_what_the_records_tell(accuracy, note):
    assert noted(accuracy, ("5", "0.01", "sigmoid"), "plain") == note


def test_a_rerun_of_the_lesson_is_beside_its_figure_even_where_that_agrees():
    for lr, published in (("1", 0.9208), ("2", 0.9054)):
        found = noted(lambda seed, step, own=published: own, ("5", lr, "relu"), "batch norm")
        assert found == "a rerun of the lesson gave 0.1010"


def made(settings, accuracy):
    """Records of the accuracy(cell, batch_norm, step)."""
    return [
        {
            "scale": cell[0],
            "lr": cell[1],
            "activation": cell[2],
            "batch_norm": kind,
            "seed": seed,
            "step": step,
            "accuracy": accuracy(cell, kind, step),
            "diverged": False,
            "p15": -1.0,
            "p50": 0.0,
            "p85": 1.0,
        }
        for seed in range(settings.seeds)
        for step in settings.measured
        for cell in settings.cells
        for kind in (False, True)
    ]


def verdicts(accuracy):
    settings = Settings(data="mnist")
    return [v.verdict for v in learning_rate.findings(made(settings, accuracy), settings).verdicts]


def test_all_claims_hold_where_batch_norm_is_always_ahead():
    assert verdicts(lambda cell, kind, step: 0.95 if kind else 0.5) == ["holds"] * 3


def test_no_claim_holds_where_batch_norm_is_always_behind():
    assert verdicts(lambda cell, kind, step: 0.5 if kind else 0.95) == ["does not hold"] * 3


def test_a_claim_does_not_hold_where_batch_norm_is_no_better():
    for both in (0.1, 0.95):
        assert verdicts(lambda cell, kind, step, own=both: own + 0.004 * kind) == ["does not hold"] * 3


def test_claims_depend_where_batch_norm_is_ahead_in_some_settings():
    def accuracy(cell, kind, step):
        ahead = kind == (cell[2] == "relu" or cell[1] == 0.01)
        return 0.95 if ahead else 0.5

    assert verdicts(accuracy) == ["depends"] * 3


def test_the_charts_show_every_setting_and_the_papers_percentiles():
    settings = Settings(data="mnist")
    accuracy, percentiles = learning_rate.charts(made(settings, lambda *_: 0.5))
    assert len(accuracy.panels) == 13
    assert [p.title for p in percentiles.panels] == ["plain", "batch norm"]
    assert [line.label for line in percentiles.panels[0].items] == ["85 %", "50 %", "15 %"]
    assert PAPER in settings.cells


def test_a_quick_run_is_drawn():
    pytest.importorskip("matplotlib")
    settings = dataclasses.replace(learning_rate.quick(SMALL), measured=(5,))
    figure = learning_rate.plot(learning_rate.run(settings))
    assert [panel.get_title() for panel in figure.axes] == [
        "relu, W = 0.5, lr 0.1",
        "relu, W = 0.5, lr 1",
        "sigmoid, W = 0.1, lr 0.5",
    ]
