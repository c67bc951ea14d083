"""The tutorial's experiment: its table on MNIST, and its records and figure on small settings."""

import dataclasses

import numpy as np
import pytest
from mnist_files import mnist_folder

from bnkit.lab.experiments import weight_scale
from bnkit.lab.experiments.weight_scale import PUBLISHED, SCALES, Settings

SMALL = Settings(data="synthetic", seeds=2, epochs=3, scales=(1.0, 0.1, 0.01), hidden=(20, 20), rows=200, batch_size=50)


@pytest.mark.slow
def test_the_table_on_mnist_is_the_tutorials():
    table = weight_scale.final(weight_scale.run(Settings(data="mnist", data_dir=mnist_folder(), backend="numpy")))
    for scale in SCALES:
        published = PUBLISHED[f"{scale:.3g}"]
        measured = [table[scale][kind][0] for kind in (False, True)]
        for got, want in zip(measured, published, strict=True):
            if want < 0.15 or want > 0.95:  # the settled cells; between them a seed moves a cell by more than 0.1
                assert abs(got - want) <= 0.08, f"W = {scale:.3g}: {measured} against {published}"
        assert (measured[0] < measured[1]) == (published[0] < published[1]), f"W = {scale:.3g}: {measured}"
    assert table[1.0][False][3] == 3, "at scale 1 the plain networks of all seeds diverge"


def test_records_hold_every_seed_kind_scale_and_epoch_once(backend):
    records = weight_scale.run(dataclasses.replace(SMALL, backend=backend.name))
    found = sorted((r["seed"], r["batch_norm"], r["scale"], r["epoch"]) for r in records)
    kinds, epochs = (False, True), (1, 2, 3)
    assert found == sorted((s, k, w, e) for s in range(2) for k in kinds for w in SMALL.scales for e in epochs)
    assert all(0 <= r["accuracy"] <= 1 and r["diverged"] is False for r in records)


def test_a_network_of_the_sweep_is_the_same_alone():
    together = weight_scale.run(dataclasses.replace(SMALL, backend="numpy"))
    alone = weight_scale.run(dataclasses.replace(SMALL, backend="numpy", scales=(0.1,)))
    assert alone == [r for r in together if r["scale"] == 0.1]


def test_progress_counts_every_update_up_to_the_total():
    seen = []
    weight_scale.run(dataclasses.replace(SMALL, backend="numpy"), on_progress=lambda *told: seen.append(told))
    updates = 2 * 2 * ((3 - 1) * 4 + 1)  # of two parts, half of the scales each
    assert seen == [(i, updates) for i in range(updates + 1)]


def test_diverged_networks_are_marked_and_do_not_warn():
    settings = dataclasses.replace(SMALL, backend="numpy", scales=(1e15, 0.1))
    table = weight_scale.final(weight_scale.run(settings))
    assert table[1e15][False][3] == 2, "both seeds diverge without batch norm"
    assert table[0.1][False][3] == table[0.1][True][3] == 0


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"epochs": 0}, {"batch_size": 0}, {"batch_size": 201}, {"rows": 0}])
def test_settings_that_cannot_be_run_are_refused(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        weight_scale.run(dataclasses.replace(SMALL, **wrong))


def test_the_figure_has_a_panel_a_scale_with_both_kinds_and_a_band():
    records = weight_scale.run(dataclasses.replace(SMALL, backend="numpy"))
    panels = [a for a in weight_scale.plot(records).axes if a.get_visible()]
    assert [a.get_title() for a in panels] == ["W = 1", "W = 0.1", "W = 0.01"]
    for panel in panels:
        assert len(panel.lines) == len(panel.collections) == 2
        for line in panel.lines:
            kind = line.get_label() == "batch norm"
            own = [r for r in records if f"W = {r['scale']:.3g}" == panel.get_title() and r["batch_norm"] == kind]
            means = [np.mean([r["accuracy"] for r in own if r["epoch"] == e]) for e in (1, 2, 3)]
            np.testing.assert_allclose(line.get_ydata(), means)


def made(**accuracies):
    """Records of two seeds, 0.01 apart, at scales 1, 0.1, …: accuracies of `plain` and `norm`."""
    return [
        {"scale": 10.0**-i, "batch_norm": kind, "seed": s, "epoch": 20, "accuracy": a - 0.01 * s, "diverged": False}
        for kind, name in ((False, "plain"), (True, "norm"))
        for i, a in enumerate(accuracies[name])
        for s in (0, 1)
    ]


@pytest.mark.parametrize(
    ("index", "verdict", "plain", "norm"),
    [
        (0, "holds", (0.9, 0.5), (0.9, 0.9)),
        (0, "depends", (0.9, 0.5), (0.5, 0.9)),
        (0, "does not hold", (0.9, 0.9), (0.5, 0.9)),
        (1, "holds", (0.1, 0.1), (0.95, 0.99)),
        (1, "does not hold", (0.9, 0.9), (0.5, 0.9)),
        (2, "holds", (0.9, 0.5), (0.95, 0.7)),
        (2, "depends", (0.9, 0.5), (0.905, 0.7)),
        (2, "depends", (0.9, 0.5), (0.8, 0.7)),
        (2, "does not hold", (0.9, 0.9), (0.8, 0.9)),
    ],
)
def test_the_verdicts_follow_their_rules(index, verdict, plain, norm):
    records = made(plain=plain, norm=norm)
    assert weight_scale.findings(records, Settings()).verdicts[index].verdict == verdict


def test_the_table_has_the_published_figure_of_every_scale_and_kind_beside_the_published_setting_alone():
    row = {"seed": 0, "epoch": 20, "accuracy": 0.5, "diverged": False}
    records = [row | {"scale": scale, "batch_norm": kind} for scale in SCALES for kind in (False, True)]
    (table,) = weight_scale.findings(records, Settings(data="mnist", data_dir="x", backend="numpy", seeds=1)).tables
    assert [r.published for r in table.rows] == [figure for pair in PUBLISHED.values() for figure in pair]
    for other in (Settings(), Settings(data="mnist", epochs=5)):
        assert {r.published for r in weight_scale.findings(records, other).tables[0].rows} == {None}
