"""The activations experiment: its records, histograms and verdicts on small settings."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.text import Text
from places import DOCS

from bnkit import MLP
from bnkit.lab.experiments import activations
from bnkit.lab.experiments.activations import Settings
from bnkit.lab.experiments.activations import claims as shown

SMALL = Settings(
    data="synthetic", backend="numpy", seeds=2, epochs=2, inits=(1.0, "he"), hidden=(8, 6), rows=60,
    batch_size=20, bins=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def records():
    return activations.run(SMALL)


def test_records_hold_every_network_measurement_and_layer_once(records):
    found = sorted(
        (r["activation"], r["batch_norm"], str(r["init"]), r["seed"], r["epoch"], r["layer"]) for r in records
    )
    names, kinds, inits = SMALL.activations, (False, True), ("1.0", "he")
    assert found == sorted(
        (a, k, i, s, e, layer)
        for a in names
        for k in kinds
        for i in inits
        for s in (0, 1)
        for e in (0, 1, 2)
        for layer in (1, 2)
    )
    assert all(sum(r["counts"]) == 60 * SMALL.hidden[r["layer"] - 1] for r in records)


def test_every_backend_runs_it(backend):
    found = activations.run(dataclasses.replace(SMALL, backend=backend.name, seeds=1, epochs=2))
    assert activations.findings(found, SMALL).verdicts


def test_the_same_settings_give_the_same_records(records):
    assert activations.run(SMALL) == records


def test_a_network_is_the_same_without_the_others(records):
    alone = activations.run(dataclasses.replace(SMALL, seeds=1, inits=("he",)))
    assert alone == [r for r in records if r["seed"] == 0 and r["init"] == "he"]


def test_the_numbers_are_those_of_each_layers_values():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 5)).astype(np.float32)
    model = MLP((5, 7, 6, 3), activation="tanh", replicas=2, seed=[0, 1], backend="numpy")
    h = x
    for i, values in zip((0, 3), activations.hidden_values(model, x), strict=True):
        z = h @ model.params[f"{i}.weight"]
        z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
        h = np.tanh(z)
        np.testing.assert_allclose(values, h, atol=1e-5)  # float32
    assert all(not layer.state or layer.state["count"] == 0 for layer in model.network.layers), "nothing has moved"


def test_batch_norm_gives_every_unit_the_same_spread_before_training(records):
    before = [r for r in records if r["batch_norm"] and r["epoch"] == 0 and r["activation"] == "tanh"]
    assert all(r["alive"] == 1 for r in before)
    # tanh of a standard normal deviates by 0.63
    assert all(r["unit_std"] == pytest.approx(0.63, abs=0.05) for r in before)


def test_a_layer_without_finite_values_is_not_alive_and_can_be_stored():
    found = activations.run(dataclasses.replace(SMALL, inits=(1e30,), seeds=1, activations=("relu",)))
    last = [r for r in found if not r["batch_norm"] and r["layer"] == 2]
    assert all(r["std"] is None and r["alive"] == 0 for r in last)


def made(norm, plain):
    """Records of three activations whose layers have these shares of living units, before training and after."""
    found = []
    for activation, made_for in shown.MADE_FOR.items():
        for init in ("0.01", made_for):
            for kind, alive in ((True, norm), (False, plain)):
                share = alive[init == made_for]
                head = {"activation": activation, "batch_norm": kind, "init": init, "accuracy": 0.5, "counts": [1, 2]}
                found += [
                    head | {"seed": s, "epoch": e, "layer": layer, "alive": share if layer == 2 else 1.0}
                    for s in (0, 1) for e in (0, 5) for layer in (1, 2)
                ]  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("index", "verdict", "norm", "plain"),
    [
        (0, "holds", (0.9, 0.5), (0.1, 0.9)),
        (0, "depends", (0.1, 0.9), (0.1, 0.1)),
        (1, "does not hold", (0.1, 0.9), (0.1, 0.9)),
        (2, "holds", (1.0, 1.0), (0.1, 0.9)),
        (2, "depends", (1.0, 1.0), (0.9, 0.9)),
        (2, "does not hold", (1.0, 1.0), (0.1, 0.1)),
    ],
)
def test_the_verdicts_follow_their_rules(index, verdict, norm, plain):
    assert shown.findings(made(norm, plain), SMALL).verdicts[index].verdict == verdict


def test_the_charts_are_shares_of_all_values_for_each_activation_before_and_after(records):
    charts = shown.charts(records)[1:]
    assert [chart.title for chart in charts] == [
        f"{name}, {when}" for name in SMALL.activations for when in ("before training", "after 2 epochs")
    ]
    for chart in charts:
        assert [panel.title for panel in chart.panels] == [f"{i}, layer {k}" for i in ("1.0", "he") for k in (1, 2)]
        for bars in (item for panel in chart.panels for item in panel.items):
            assert sum(bars.heights) == pytest.approx(1)
            assert len(bars.edges) == SMALL.bins + 1


def test_the_course_of_living_units_is_shown_for_every_network_at_every_measurement(records):
    course = shown.charts(records)[0]
    assert [panel.title for panel in course.panels] == [f"{a}, {i}" for a in SMALL.activations for i in ("1.0", "he")]
    for panel in course.panels:
        activation, init = panel.title.split(", ")
        for item in panel.items:
            own = [
                r for r in records
                if (r["activation"], str(r["init"]), r["batch_norm"]) == (activation, init, item.label == "batch norm")
            ]  # fmt: skip
            assert item.x == (0.0, 1.0, 2.0)
            for seed in (0, 1):
                shares = [min(r["alive"] for r in own if (r["seed"], r["epoch"]) == (seed, e)) for e in (0, 1, 2)]
                assert item.runs[f"seed {seed}"] == tuple(shares)


def test_a_network_that_is_not_spread_at_one_measurement_in_training_does_not_count():
    found = made((0.9, 0.9), (0.1, 0.1))
    between = [r | {"epoch": 2, "alive": 0.4 if r["init"] == "he" else r["alive"]} for r in found if r["epoch"] == 5]
    before, during, _ = shown.findings(found + between, SMALL).verdicts
    assert (before.verdict, during.verdict) == ("holds", "depends")
    assert "not relu from he" in during.reason


def test_the_published_figure_fits_on_a_screen_with_text_that_can_be_read():
    found = json.loads((DOCS / "activations.json").read_text())["records"]
    figure = activations.plot(found)
    width, height = 120 * figure.get_size_inches()  # dots an inch, as `bnkit run` saves it
    assert height <= 2400
    assert width <= 2400
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 8  # points, which are 13 pixels


def test_quick_settings_can_be_shown():
    settings = activations.quick(SMALL)
    found = activations.run(settings)
    assert [len(table.rows) for table in activations.findings(found, settings).tables] == [24, 12]
    assert len(activations.plot(found).axes) == 8 + 6 * 4  # two of the first eight are empty


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"activations": ("elu",)}, {"batch_size": 61}])
def test_settings_that_cannot_be_run_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        activations.run(dataclasses.replace(SMALL, **wrong))
