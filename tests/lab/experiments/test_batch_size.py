"""The batch-size experiment: its records, ranks, noise and verdicts on small settings."""

import dataclasses
import threading

import numpy as np
import pytest

from bnkit import MLP
from bnkit.lab.experiments import batch_size
from bnkit.lab.experiments.batch_size import Settings
from bnkit.lab.experiments.batch_size import claims as shown
from bnkit.lab.experiments.batch_size.ranks import TwoRanks

SMALL = Settings(
    data="synthetic", backend="numpy", seeds=2, epochs=2, rows=64, batches=(2, 8, 32), rank_batches=(8,),
    hidden=(8, 6), draws=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def records():
    return batch_size.run(SMALL)


def test_records_hold_every_case_and_seed_once(records):
    found = sorted((r["kind"], r["batch"], r["counted"], r["seed"]) for r in records)
    cases = [(kind, n, n) for kind in (shown.PLAIN, shown.NORM) for n in (2, 8, 32)]
    cases += [(shown.GHOST, 32, 2), (shown.GHOST, 32, 8)]
    cases += [(kind, n, n // share) for kind, share in ((shown.SHARED, 1), (shown.OWN, 2)) for n in (8,)]
    assert found == sorted((*case, seed) for case in cases for seed in (0, 1))
    assert all(r["updates"] == 128 // r["batch"] for r in records), "as many rows at every batch size"
    assert all(r["lr"] == pytest.approx(0.1 * r["batch"] / 128) for r in records)


def test_every_backend_runs_it(backend):
    found = batch_size.run(dataclasses.replace(SMALL, backend=backend.name, seeds=1, epochs=2))
    assert batch_size.findings(found, SMALL).verdicts


def test_the_same_settings_give_the_same_records(records):
    assert batch_size.run(SMALL) == records


def test_a_network_is_the_same_without_the_other_seed(records):
    alone = batch_size.run(dataclasses.replace(SMALL, seeds=1))
    for found, expected in zip(alone, (r for r in records if r["seed"] == 0), strict=True):
        assert found == expected | {name: pytest.approx(expected[name]) for name in ("mean_noise", "var_noise")}


def test_a_run_goes_on_from_its_checkpoint(records, tmp_path):
    def kill(done, total):
        if done > total / 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        batch_size.run(SMALL, on_progress=kill, checkpoint=tmp_path / "c")
    assert batch_size.run(SMALL, checkpoint=tmp_path / "c") == records


def test_two_ranks_that_share_statistics_are_one_batch():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, 12, 5)), rng.integers(0, 3, (2, 12))
    one, two = (MLP((5, 7, 6, 3), replicas=2, seed=[0, 1], backend="numpy", dtype="float64") for _ in range(2))
    expected = one.loss_and_grads(x, t)[1]
    with TwoRanks(two) as ranks:
        grads = ranks.gradients(x, t)
    assert grads.keys() == expected.keys()
    for found, wanted in ((grads, expected), (two.state, one.state)):
        for name in wanted:
            # float64; the bias before batch norm has a gradient of 0 but for roundings
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-12)


def test_an_error_in_one_rank_ends_the_other(monkeypatch):
    model = MLP((5, 7, 3), replicas=1, seed=[0], backend="numpy")
    with TwoRanks(model) as ranks:
        monkeypatch.setattr(ranks.networks[1], "forward", lambda *args, **kwargs: 1 / 0)
        x, t = np.ones((1, 4, 5), np.float32), np.zeros((1, 4), np.int64)
        with pytest.raises((ZeroDivisionError, threading.BrokenBarrierError)):  # that rank's own, or the broken meeting
            ranks.gradients(x, t)


def test_the_noise_of_the_mean_is_that_of_so_many_draws(records):
    for r in records:
        if r["kind"] == shown.NORM and r["batch"] > 2:
            # 20 draws of some units that are not independent
            assert r["mean_noise"] * r["batch"] ** 0.5 == pytest.approx(1, abs=0.2)


def record(kind, batch, counted=None, seed=0, *, test, anew=0.5, noise=1.0):
    counted = batch if counted is None else counted
    numbers = {"test": test + 0.005 * seed, "test_anew": anew, "mean_noise": noise / counted**0.5, "var_noise": 0.1}
    return {"kind": kind, "batch": batch, "counted": counted, "seed": seed, "diverged": False} | numbers


def made(*, plain=(0.6, 0.6), norm=(0.5, 0.7), ghost=0.6, anew=0.5, shared=0.5, own=0.4, noises=(1.0, 1.0)):
    """Records at batches of 4 and 64 rows, in which two seeds differ by 0.005."""
    found = []
    for seed in (0, 1):
        for i, size in enumerate((4, 64)):
            found.append(record(shown.PLAIN, size, seed=seed, test=plain[i]))
            found.append(record(shown.NORM, size, seed=seed, test=norm[i], anew=anew, noise=noises[i]))
        found.append(record(shown.GHOST, 64, 4, seed, test=ghost))
        found.append(record(shown.SHARED, 4, 4, seed, test=shared))
        found.append(record(shown.SHARED, 64, 64, seed, test=norm[1]))
        found += [record(shown.OWN, size, size // 2, seed, test=own) for size in (4, 64)]
    return found


@pytest.mark.parametrize(
    ("index", "verdict", "numbers"),
    [
        (0, "holds", {"noises": (0.95, 1.05)}),
        (0, "depends", {"noises": (0.8, 1.05)}),
        (0, "does not hold", {"noises": (0.8, 1.2)}),
        (1, "holds", {"norm": (0.5, 0.7)}),
        (1, "depends", {"norm": (0.5, 0.7), "plain": (0.4, 0.6)}),
        (1, "does not hold", {"norm": (0.7, 0.6)}),
        (2, "holds", {"norm": (0.5, 0.7), "anew": 0.65}),
        (2, "depends", {"norm": (0.5, 0.7), "anew": 0.56}),
        (2, "does not hold", {"norm": (0.5, 0.7), "anew": 0.5}),
        (3, "holds", {"ghost": 0.71}),
        (3, "depends", {"ghost": 0.704}),  # 0.704 and 0.709 against 0.7 and 0.705
        (3, "does not hold", {"ghost": 0.6}),
        (4, "holds", {"shared": 0.505}),
        (4, "depends", {"shared": 0.55}),
    ],
)
def test_the_verdicts_follow_their_rules(index, verdict, numbers):
    assert shown.findings(made(**numbers), SMALL).verdicts[index].verdict == verdict


def test_networks_that_diverge_are_recorded_and_left_out_of_the_noise(tmp_path):
    found = batch_size.run(dataclasses.replace(SMALL, lr=1e30), checkpoint=tmp_path / "c")
    norm = [r for r in found if r["kind"] == shown.NORM]
    assert {r["mean_noise"] for r in norm} == {r["var_noise"] for r in norm} == {None}
    shows = shown.findings(found, SMALL)
    assert (shows.verdicts[0].verdict, shows.verdicts[0].reason) == ("does not hold", "All networks diverged.")
    assert shows.tables[1].rows == ()
    batch_size.plot(found)


def test_the_tables_and_charts_hold_every_kind(records):
    found = batch_size.findings(records, SMALL)
    assert {row.kind for row in found.tables[0].rows} == {*shown.STYLES, "its statistics anew"}
    assert len(found.tables[0].rows) == 3 * 3 + 2 + 2
    assert [len(chart.panels) for chart in found.charts] == [3, 2]
    assert len([axes for axes in batch_size.plot(records).axes if axes.get_visible()]) == 5


def test_quick_settings_are_smaller():
    settings = batch_size.quick(Settings())
    assert (settings.seeds, settings.epochs, settings.rows) == (1, 1, 1000)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batches": (8,)}, "batches must be two or more sizes above 1"),
        ({"batches": (1, 8)}, "batches must be two or more sizes above 1"),
        ({"batches": (8, 65)}, "batch_size"),
        ({"rank_batches": (16,)}, "rank_batches"),
        ({"rank_batches": (2,)}, "rank_batches"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        batch_size.run(dataclasses.replace(SMALL, **wrong))
