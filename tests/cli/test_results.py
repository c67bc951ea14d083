"""What a command leaves: its files whole, whatever happened to their folder or to who reads its output."""

import shutil
import subprocess
import sys

import pytest
from commands import COMMANDS, FILES, SCRIPT, after_the_work, check_whole
from commands import workplace as workplace

import bnkit
from bnkit.cli import main, train

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_went_during_the_work_is_made_again(command, monkeypatch, workplace, capsys):
    folder = workplace / "results"
    after_the_work(monkeypatch, command, lambda: shutil.rmtree(folder))
    assert main(COMMANDS[command].split()) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert sorted(path.name for path in folder.iterdir()) == FILES[command]
    for name in FILES[command]:
        check_whole(folder / name)
        assert f"wrote results/{name}" in printed.out.replace("\\", "/")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_its_folder_cannot_take_any_more_is_written_elsewhere(command, monkeypatch, workplace, capsys):
    def block():
        shutil.rmtree("results")
        with open("results", "w") as file:
            file.write("in the way")

    after_the_work(monkeypatch, command, block)
    assert main(COMMANDS[command].split()) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    found = sorted(workplace.with_name("elsewhere").glob("*/*"))
    assert sorted(path.name for path in found) == FILES[command]
    for path in found:
        check_whole(path)
        assert f"wrote {path} instead, move it" in printed.err


def test_a_checkpoint_that_cannot_be_written_any_more_costs_no_network(monkeypatch, workplace, capsys):
    class Blocking(bnkit.EarlyStopping):
        def __call__(self, record, model):
            if record["epoch"] == 2:
                shutil.rmtree("kept")
                (workplace / "kept").write_text("in the way")

    monkeypatch.setattr(train, "EarlyStopping", Blocking)
    options = "--epochs 3 --patience 1 --checkpoint kept/c.bnkit"
    assert main([*COMMANDS["train"].split(), *options.split()]) == 1
    printed = capsys.readouterr()
    assert "holds the network after epoch 2" in printed.err
    assert len(printed.err.splitlines()) == 1
    check_whole(workplace / "results" / "net.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe there has no reader to lose")
@pytest.mark.parametrize("command", ["run", "train"])
def test_output_that_nobody_reads_any_more_costs_no_results(command, workplace):
    assert SCRIPT is not None
    options = ["--seeds", "1", "--epochs", "2"] if command == "run" else []
    with subprocess.Popen(
        [SCRIPT, *COMMANDS[command].split(), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # the settings: the work has begun
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    for name in FILES[command]:
        check_whole(workplace / "results" / name)


@pytest.mark.parametrize("name", ["a.PNG", "a.Pdf", "a.SVG"])
def test_the_suffix_of_a_figure_may_be_in_capitals(name):
    assert main([*COMMANDS["bench"].split()[:-1], name]) == 0
    with open(name, "rb") as file:
        assert file.read(5) in (b"\x89PNG\r", b"%PDF-", b"<?xml")
