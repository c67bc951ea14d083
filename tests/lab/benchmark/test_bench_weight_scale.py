"""`bnkit bench --cases weight-scale`: its row, its products, and how it goes with batch norm's cases."""

import itertools
import json
import sys

import numpy as np
import pytest
from places import HELPERS

from bnkit.cli import bench, main
from bnkit.lab.benchmark import experiment, measure
from bnkit.lab.benchmark.peers import Peer
from bnkit.lab.benchmark.peers.weight_scale import Problem
from bnkit.lab.experiments import weight_scale

FAKE = HELPERS / "fake_peer.py"
QUICK = ("bench", "--quick", "--backend", "numpy", "--data", "synthetic", "--ops", "train", "--no-reference")


@pytest.fixture(autouse=True)
def short_rates(monkeypatch):
    """The whole copy and product take seconds, and no test looks at their values."""
    copy, product = measure.copy_bandwidth, measure.product_rate
    monkeypatch.setattr(measure, "copy_bandwidth", lambda backend: copy(backend, nbytes=2**16, seconds=0))
    monkeypatch.setattr(measure, "product_rate", lambda backend: product(backend, size=64, seconds=0))


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Makes the peer "torch" a fake one; the list holds what it was asked."""
    messages = []

    class Recorded(Peer):
        def ask(self, message):
            messages.append(message)
            return super().ask(message)

    monkeypatch.setattr(bench, "check_installed", lambda name: None)
    monkeypatch.setattr(bench, "command", lambda *_: [sys.executable, str(FAKE), "well"])
    monkeypatch.setattr(bench, "Peer", Recorded)
    return messages


def measured(tmp_path, *options):
    path = tmp_path / "rows.json"
    assert main([*QUICK, "--json", str(path), *options]) == 0
    return json.loads(path.read_text())


def test_the_row_holds_the_time_its_ratio_and_its_products_but_no_bytes(tmp_path, asked, capsys):
    file = measured(tmp_path, "--cases", "weight-scale", "--against", "torch")
    (row,) = file["records"]
    assert (row["case"], row["op"], row["through"], row["dtype"]) == ("weight-scale", "run", "experiment", "float32")
    assert 0 < row["low_us"] <= row["median_us"] <= row["high_us"]
    assert row["gflop_per_s"] == pytest.approx(row["flops"] / row["median_us"] / 1e3)
    assert row["share_of_products"] == pytest.approx(row["gflop_per_s"] / row["product_gflop_per_s"])
    assert all(row[name] is None for name in ("gb_per_s", "share", "share_two_reads", "over_floor", "reference"))
    found = row["peers"]["torch"]
    assert (found["entry"], found["median_us"]) == ("fast", 1e6)
    assert found["ratio"] == pytest.approx(1e6 / row["median_us"])
    settings = file["settings"]["experiment"]
    assert (settings["data"], settings["seeds"], settings["epochs"]) == ("synthetic", 1, 2)
    assert asked[0] == {"prepare": {"workload": "weight_scale", **settings} | {
        name: tuple(settings[name]) for name in ("scales", "hidden")
    }}  # fmt: skip
    printed = capsys.readouterr().out
    assert f"{row['share_of_products']:.0%} of the products' floor" in printed
    assert f"{found['ratio']:.2f}×" in next(line for line in printed.splitlines() if line.startswith("weight-scale  "))


def test_a_block_is_one_call_without_a_warm_up(tmp_path, asked, monkeypatch):
    runs = []
    train = weight_scale.train
    monkeypatch.setattr(weight_scale, "train", lambda *a, **k: runs.append(len(asked)) or train(*a, **k))
    measured(tmp_path, "--cases", "weight-scale", "--against", "torch")
    trial = 1 + 3  # what is prepared, and the entries that the fake peer tells
    assert runs == [trial, trial + 1, trial + 2], "bnkit and the peer take turns"
    blocks = [message for message in asked if "measure" in message]
    assert all((m["seconds"], m["least"], m["warm_up"]) == (0, 1, False) for m in blocks)


def test_it_goes_with_cases_of_batch_norm_and_is_not_among_all_of_them(tmp_path, monkeypatch):
    both = measured(tmp_path, "--cases", "weight-scale,16x100x100")
    assert [row["case"] for row in both["records"]] == ["16x100x100", "weight-scale"]
    monkeypatch.setattr(measure, "cases", lambda **_: [measure.Case((8, 4), 1)])
    every = measured(tmp_path, "--overwrite")
    assert [row["case"] for row in every["records"]] == ["8x4"]
    assert every["settings"]["experiment"] is None


def test_the_products_are_those_that_the_tutorials_layers_call(monkeypatch):
    from bnkit.lab.benchmark.peers import weight_scale_tutorial as tutorial

    settings = weight_scale.Settings(hidden=(5, 4), scales=(1.0, 0.1), rows=6, batch_size=2, epochs=2, seeds=1)
    draws = np.random.default_rng(0)
    normals = [draws.standard_normal(shape) for shape in itertools.pairwise((3, 5, 4, 2))]
    batches = draws.integers(0, 6, (4, 2))
    work = Problem(draws.standard_normal((6, 3)), draws.integers(0, 2, 6), 2, normals, batches, 3, settings)
    counted = []
    dot = np.dot

    def counting(a, b):
        counted.append(2 * a.shape[0] * a.shape[1] * b.shape[1])
        return dot(a, b)

    monkeypatch.setattr(tutorial.np, "dot", counting)
    tutorial.prepare(work)["tutorial float64"]()
    first_input = 4 * len(batches) * 2 * 2 * 3 * 5  # the tutorial differentiates by the images too, which nobody needs
    assert experiment.flops(work) == sum(counted) - first_input


def test_a_figure_without_a_case_of_batch_norm_is_refused_before_the_work(tmp_path, capsys):
    assert main([*QUICK, "--cases", "weight-scale", "--plot", str(tmp_path / "figure.png")]) == 2
    printed = capsys.readouterr()
    assert "plot must be left out" in " ".join(printed.err.split())
    assert printed.out == ""
