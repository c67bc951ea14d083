"""What lies where a command writes: it stays, unless --overwrite replaces it or the command resumes its own run."""

import json
import os
import signal

import numpy as np
import pytest
from commands import COMMANDS, FILES, after_the_work, check_whole
from commands import workplace as workplace

import bnkit
from bnkit.cli import main, train
from bnkit.lab.benchmark import measure
from bnkit.lab.experiments import overfitting
from bnkit.lab.experiments import records as record_files

pytestmark = pytest.mark.usefixtures("workplace")
OPTIONS = {"a.json": "--json", "a.png": "--plot"}
LITTLE = overfitting.Settings(
    data="synthetic", backend="numpy", seeds=1, epochs=3, rows=40, batch_size=20, hidden=(4,), decay_epochs=3,
    search_lrs=(0.1,), search_batches=(20,),
)  # fmt: skip


@pytest.fixture
def earlier(workplace):
    """Writes files of these names into the folder of results."""

    def write(*names):
        folder = workplace / "results"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(f"the earlier {name}")
        return folder

    return write


def no_work(monkeypatch):
    """The test fails where a command begins its work: loads data, or measures the machine."""
    monkeypatch.setattr("bnkit.data.load", lambda *args, **kwargs: pytest.fail("loaded data"))
    monkeypatch.setattr(measure, "copy_bandwidth", lambda *args, **kwargs: pytest.fail("measured"))


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in FILES for name in FILES[command]])
def test_an_earlier_result_is_kept_and_named_before_the_work(command, name, earlier, monkeypatch, capsys):
    no_work(monkeypatch)
    folder = earlier(name)
    assert main(COMMANDS[command].split()) == 2
    printed = capsys.readouterr()
    path, option = os.path.join("results", name), OPTIONS.get(name, "--out")
    assert printed.err == f"bnkit: {path} already exists; --overwrite replaces it, another {option} keeps it\n"
    assert printed.out == ""
    assert [p.name for p in folder.iterdir()] == [name]
    assert (folder / name).read_text() == f"the earlier {name}"


def test_all_earlier_results_are_named_in_one_line(earlier, capsys):
    earlier(*FILES["run"])
    assert main(COMMANDS["run"].split()) == 2
    first, second = (os.path.join("results", name) for name in FILES["run"])
    remedy = "--overwrite replaces them, another --out keeps them"
    assert capsys.readouterr().err == f"bnkit: {first} and {second} already exist; {remedy}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_overwrite_replaces_an_earlier_result(command, earlier, monkeypatch):
    folder = earlier(*FILES[command])
    after_the_work(monkeypatch, command, lambda: None)
    assert main([*COMMANDS[command].split(), "--overwrite"]) == 0
    for name in FILES[command]:
        check_whole(folder / name)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_earlier_result_stays_until_the_new_one_is_whole(command, earlier, monkeypatch):
    folder = earlier(*FILES[command])
    seen = []
    sync = os.fsync

    def look(handle):
        seen.append([(folder / name).read_text(errors="replace") for name in FILES[command]])
        sync(handle)

    after_the_work(monkeypatch, command, lambda: None)
    monkeypatch.setattr(os, "fsync", look)
    assert main([*COMMANDS[command].split(), "--overwrite"]) == 0
    for i, name in enumerate(FILES[command]):  # just before the new one takes its place
        assert seen[i][i] == f"the earlier {name}"


def test_a_benchmark_that_is_interrupted_leaves_the_whole_earlier_one(earlier, monkeypatch, capsys):
    folder = earlier(*FILES["bench"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    plan_run = measure.bytes_moved
    calls = []

    def interrupt(*args, **kwargs):
        calls.append(args)
        if len(calls) > 4:  # two of each row
            raise KeyboardInterrupt
        return plan_run(*args, **kwargs)

    monkeypatch.setattr(measure, "bytes_moved", interrupt)
    try:
        assert main([*COMMANDS["bench"].split(), "--overwrite"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(p.name for p in folder.iterdir()) == ["a.json", "a.png", "a_part.json", "a_part.png"]
    for name in FILES["bench"]:
        assert (folder / name).read_text() == f"the earlier {name}"
    assert len(json.loads((folder / "a_part.json").read_text())["records"]) == 2
    assert f"wrote {os.path.join('results', 'a_part.json')}" in capsys.readouterr().out


@pytest.fixture
def killed_while_writing(workplace):
    """An overfitting run that was killed after its records and before its figure; its command."""
    (workplace / "results").mkdir()
    kept, path = (workplace / "results" / f"overfitting.{suffix}" for suffix in ("checkpoint", "json"))
    found = overfitting.run(LITTLE, checkpoint=kept)
    record_files.write(path, LITTLE, found, bnkit.get_backend("numpy"))
    record_files.write("asked.json", LITTLE, found, bnkit.get_backend("numpy"))
    return ["run", "overfitting", "--out", "results", "--from", "asked.json"]


def test_a_run_that_was_killed_between_its_two_files_writes_both(workplace, killed_while_writing, capsys):
    assert main(killed_while_writing) == 0
    assert "going on from" in capsys.readouterr().out
    assert sorted(p.name for p in (workplace / "results").iterdir()) == ["overfitting.json", "overfitting.png"]


@pytest.mark.parametrize("missing", ["checkpoint", "same settings"])
def test_records_of_no_run_that_is_resumed_are_kept(missing, workplace, killed_while_writing):
    path = workplace / "results" / "overfitting.json"
    if missing == "checkpoint":
        (workplace / "results" / "overfitting.checkpoint").unlink()
    else:
        path.write_text(path.read_text().replace('"seeds": 1', '"seeds": 2'))
    before = path.read_bytes()
    assert main(killed_while_writing) == 2
    assert path.read_bytes() == before


TRAIN = [*COMMANDS["train"].split(), "--checkpoint", "c.bnkit"]


def weights(path="results/net.npz"):
    return bnkit.MLP.load(path, backend="numpy").params["0.weight"]


def test_a_training_with_a_checkpoint_that_has_finished_writes_the_same_network_again():
    assert main(TRAIN) == 0
    before = weights()
    assert main(TRAIN) == 0
    np.testing.assert_array_equal(weights(), before)


def test_a_finished_training_with_a_checkpoint_goes_on_for_more_epochs():
    assert main(TRAIN) == 0
    before = weights()
    assert main([*TRAIN, "--epochs", "3"]) == 0
    assert not np.array_equal(weights(), before)


def test_a_killed_training_with_a_checkpoint_goes_on(monkeypatch, capsys):
    class Killing(bnkit.EarlyStopping):
        def __call__(self, record, model):
            if record["epoch"] == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "EarlyStopping", Killing)
        assert main([*TRAIN, "--patience", "9"]) == 130
    assert not os.path.exists("results/net.npz")
    assert main([*TRAIN, "--patience", "9"]) == 0
    assert "epochs: 2" in capsys.readouterr().out


def test_the_network_of_another_training_is_kept_where_a_checkpoint_would_be_resumed(capsys):
    assert main(TRAIN) == 0
    assert main([*COMMANDS["train"].split(), "--lr", "0.5", "--overwrite"]) == 0
    before = weights()
    capsys.readouterr()
    assert main(TRAIN) == 2
    assert "net.npz already exists" in capsys.readouterr().err
    np.testing.assert_array_equal(weights(), before)


def test_the_checkpoint_may_not_be_the_file_of_the_network(capsys):
    assert main([*COMMANDS["train"].split(), "--checkpoint", "results/../results/net.npz"]) == 2
    assert "must be another file than --out" in " ".join(capsys.readouterr().err.split())
