"""`bnkit train`: what it says and leaves where a network diverges, and where the best network is saved."""

import numpy as np
import pytest
from commands import workplace as workplace

import bnkit
from bnkit.cli import main

pytestmark = pytest.mark.usefixtures("workplace")
TRAIN = "train --data synthetic --hidden 8 --backend numpy --out net.npz"


def run(options, capsys):
    code = main([*TRAIN.split(), *options.split()])
    return code, *capsys.readouterr()


def numbers(text):
    """The printed numbers by their names."""
    pairs = [line.split(": ", 1) for line in text.splitlines() if line.startswith(("training ", "test "))]
    return {name: [float(v) for v in values.split(", ")] for name, values in pairs}


def test_a_diverged_training_is_said_once_and_ends_with_1(capsys, workplace):
    code, out, err = run("--lr 1e30 --epochs 50", capsys)
    assert code == 1
    said, saved = err.splitlines()
    assert said.startswith("bnkit: the training diverged in epoch 1, at step 2:")
    assert saved == "bnkit: net.npz is not written, since the network diverged"
    assert "epochs: 1\n" in out  # nothing can come of the others
    assert np.isnan(numbers(out)["test accuracy"])
    assert list(workplace.iterdir()) == []


def test_no_diverged_network_overwrites_a_good_file(capsys, workplace):
    assert run("--epochs 1", capsys)[0] == 0
    before = (workplace / "net.npz").read_bytes()
    code, _, err = run("--lr 1e30 --overwrite", capsys)
    assert code == 1
    assert "bnkit: net.npz stays as it was, since the network diverged" in err
    assert (workplace / "net.npz").read_bytes() == before


def test_the_sound_replicas_of_a_diverged_training_are_saved(capsys, workplace):
    code, out, err = run("--replicas 3 --lr 0.1,1e30,0.01 --epochs 2", capsys)
    assert code == 1
    assert "at step 2 (replica 1):" in err
    accuracies = numbers(out)["test accuracy"]
    assert np.isnan(accuracies).tolist() == [False, True, False]
    data, model = bnkit.data.load("synthetic"), bnkit.MLP.load(workplace / "net.npz", backend="numpy")
    np.testing.assert_allclose(model.accuracy(*data[2:]), accuracies, atol=5e-5)  # four decimals


def test_a_resumed_training_that_had_diverged_says_so_and_ends_with_1(capsys):
    options = "--replicas 2 --lr 0.1,1e30 --epochs 2 --checkpoint c"
    assert run(options, capsys)[0] == 1
    code, _, err = run(options, capsys)
    assert code == 1
    assert err == "bnkit: the training had diverged in epoch 1, before it was resumed\n"


@pytest.mark.parametrize("replicas", ["", "--replicas 2 --seed 0,1 --init 0.05,3"])
def test_the_best_network_is_saved_and_its_numbers_are_printed(capsys, workplace, replicas):
    options = f"--epochs 20 --lr 1 --patience 3 --monitor test_loss --restore-best --checkpoint c {replicas}"
    code, out, err = run(options, capsys)
    assert (code, err) == (0, "")
    first = out.splitlines()
    assert any(line.startswith("epochs: ") and ", best by test_loss: " in line for line in first)
    data, model = bnkit.data.load("synthetic"), bnkit.MLP.load(workplace / "net.npz", backend="numpy")
    for name, value in (("test accuracy", model.accuracy(*data[2:])), ("test loss", model.loss(*data[2:]))):
        np.testing.assert_allclose(np.atleast_1d(value), numbers(out)[name], atol=5e-5)  # four decimals
    code, again, _ = run(options, capsys)  # it had finished, and the file holds its network
    assert code == 0
    assert numbers(again) == numbers(out)


def test_a_last_batch_of_one_row_can_be_left_out(capsys):
    code, _, err = run("--batch-size 999 --epochs 1", capsys)
    assert code == 2
    assert "drop_last=True" in err
    assert run("--batch-size 999 --epochs 1 --drop-last", capsys)[0] == 0
