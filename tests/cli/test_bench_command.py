"""`bnkit bench`: what it measures, its options and errors, its files, and what misbehaving peers leave."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from places import HELPERS

import bnkit
from bnkit.cli import bench, main
from bnkit.lab.benchmark import measure, peers, rows, summary
from bnkit.lab.benchmark.peers import Peer

FAKE = HELPERS / "fake_peer.py"
SCRIPT = shutil.which("bnkit", path=str(Path(sys.executable).parent))
SHORT = ("--seconds", "0.002", "--cases", "100x100,16x100x100")


@pytest.fixture(autouse=True)
def short_copy(monkeypatch):
    """The whole copy takes seconds, and no test looks at the bandwidth's value."""
    whole = measure.copy_bandwidth
    monkeypatch.setattr(measure, "copy_bandwidth", lambda backend: whole(backend, nbytes=2**16, seconds=0))


@pytest.fixture
def fake_peer(monkeypatch):
    """Makes the peer "torch" the fake one, in a manner."""

    def install(manner):
        monkeypatch.setattr(bench, "check_installed", lambda name: None)
        monkeypatch.setattr(bench, "command", lambda name, threads, place: [sys.executable, str(FAKE), manner])
        monkeypatch.setattr(bench, "Peer", lambda *arguments: Peer(*arguments, patience=3))

    return install


def measured(tmp_path, *options):
    """The file of a run, which must end well."""
    path = tmp_path / "rows.json"
    assert main(["bench", *SHORT, "--json", str(path), *options]) == 0
    return json.loads(path.read_text())


def test_a_row_holds_its_figures_and_they_agree_with_each_other(tmp_path):
    file = measured(tmp_path, "--ops", "train,backward-residual-relu", "--dtypes", "float32,float64")
    cases = {case.name: case for case in measure.cases()}
    bandwidth = file["machine"]["copy_gb_per_s"] * 1e9
    for row in file["records"]:
        case = cases[row["case"]]
        itemsize = int(row["dtype"].removeprefix("float")) // 8
        seconds = row["median_us"] / 1e6
        assert row["low_us"] <= row["median_us"] <= row["high_us"]
        assert row["tensor_bytes"] == case.elements * itemsize
        assert row["bytes_one_read"] == measure.bytes_moved(row["op"], case, itemsize)
        assert row["bytes_two_reads"] == measure.bytes_moved(row["op"], case, itemsize, one_read=False)
        assert row["gb_per_s"] == pytest.approx(row["bytes_one_read"] / seconds / 1e9)
        assert row["share"] == pytest.approx(row["bytes_one_read"] / seconds / bandwidth)
        assert row["share_two_reads"] == pytest.approx(row["bytes_two_reads"] / seconds / bandwidth)
        assert row["over_floor"] == pytest.approx(1 / row["share"])
        if row["through"] == "function":
            assert row["reference"]["ratio"] == pytest.approx(row["reference"]["median_us"] / row["median_us"])


def test_the_file_says_what_was_run_on_which_machine(tmp_path):
    file = measured(tmp_path, "--ops", "inference", "--no-reference")
    assert set(file) == {"settings", "versions", "machine", "records"}
    assert file["settings"]["cases"] == ["100x100", "16x100x100"]
    assert file["settings"]["ops"] == ["inference"]
    path = tmp_path / "rows.json"
    assert file["settings"]["command"] == (
        f"bnkit bench --cases 100x100,16x100x100 --ops inference --seconds 0.002 --no-reference --json {path}"
    )
    assert file["machine"]["backend"] == "numpy"
    assert file["machine"]["threads"] == bnkit.get_backend("numpy").details()["threads"]
    assert {"copy_gb_per_s", "caches"} <= set(file["machine"])
    assert all(row["reference"] is None for row in file["records"])


def test_the_small_case_is_timed_at_each_depth(tmp_path):
    file = measured(tmp_path, "--ops", "train,backward", "--layouts", "flat", "--no-reference")
    found = [(row["op"], row["through"]) for row in file["records"]]
    assert found == [(op, t) for op in ("train", "backward") for t in ("function", "op", "layer")][:-1]


def test_a_step_of_an_optimizer_is_measured_where_it_is_named(tmp_path, fake_peer):
    fake_peer("well")
    assert not {row["op"] for row in measured(tmp_path)["records"]} & set(measure.UPDATES)
    file = measured(tmp_path, "--ops", "adam-step,train", "--layouts", "replicas", "--against", "torch", "--overwrite")
    step, forward = file["records"]
    assert (step["op"], step["through"], step["peers"]) == ("adam-step", "op", {})
    assert step["bytes_one_read"] == step["bytes_two_reads"] == 7 * 160_000 * 4
    assert step["reference"]["ratio"] == pytest.approx(step["reference"]["median_us"] / step["median_us"])
    assert forward["peers"]["torch"]["entry"] == "fast"


@pytest.mark.parametrize(
    ("names", "layouts", "found"),
    [
        (["100x100"], [], ["100x100"]),
        (["x100x100"], [], ["16x100x100"]),
        (["1024x4096", "128x1024"], [], ["1024x4096", "128x1024"]),
        (["512x7x7"], ["NHWC", "NCHW"], ["NCHW 16x512x7x7", "NCHW 50x512x7x7"]),
        ([], ["replicas"], ["16x100x100"]),
    ],
)
def test_cases_are_chosen_by_name_part_and_layout(names, layouts, found):
    assert [case.name for case in rows.chosen_cases(measure.cases(), names, layouts)] == found


def test_no_choice_is_every_case_and_quick_the_small_ones():
    known = measure.cases()
    assert rows.chosen_cases(known, [], []) == known
    small = rows.chosen_cases(known, [], [], quick=True)
    assert 0 < len(small) < len(known)
    assert max(case.elements for case in small) <= rows.QUICK_ELEMENTS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_dtype_is_measured(tmp_path, dtype):
    file = measured(tmp_path, "--dtypes", dtype, "--ops", "train,inference,backward", "--no-reference")
    assert {row["dtype"] for row in file["records"]} == {dtype}


def test_the_ratio_to_a_peer_is_that_of_the_medians_of_its_fastest_entry(tmp_path, fake_peer, capsys):
    fake_peer("well")
    file = measured(tmp_path, "--ops", "train", "--against", "torch", "--no-reference", "--layouts", "flat,replicas")
    compared = [row for row in file["records"] if row["through"] == "function"]
    assert file["versions"]["fake"] == "1.0"
    for row in compared:
        found = row["peers"]["torch"]
        assert (found["entry"], found["median_us"]) == ("fast", 1e6)
        assert found["tried_us"] == {"slow": 2e6, "fast": 1e6}
        assert found["ratio"] == pytest.approx(1e6 / row["median_us"])
    assert all(row["peers"] == {} for row in file["records"] if row["through"] != "function")
    ratios = [row["peers"]["torch"]["ratio"] for row in compared]
    expected = math.exp(sum(map(math.log, ratios)) / len(ratios))
    last = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("torch / bnkit"))
    assert f"geometric mean {expected:.2f} over 2 rows" in last
    assert f"worst {min(ratios):.2f}" in last


@pytest.mark.parametrize(
    ("manner", "reason", "afterwards"),
    [
        ("dies", "ended with exit code 3: the last line", False),
        ("hangs", "gave no answer in 3 s, and was ended", False),
        ("fails", "TypeError: not this one", True),
    ],
)
def test_a_peer_that_breaks_down_leaves_an_empty_cell_and_the_run_goes_on(
    tmp_path, fake_peer, capsys, manner, reason, afterwards
):
    fake_peer(manner)
    file = measured(tmp_path, "--ops", "train,inference,backward", "--against", "torch", "--layouts", "replicas")
    first, second, third = (row["peers"]["torch"] for row in file["records"])
    assert "ratio" in first
    assert second == {"skipped": reason} or (second["skipped"] == reason and "ratio" not in second)
    assert ("ratio" in third) == afterwards
    printed = capsys.readouterr().out
    assert printed.count(reason) == 1, "told once"
    assert f"over {1 + afterwards} rows" in printed


def test_a_peer_without_any_figure_is_no_error(tmp_path, fake_peer, capsys):
    fake_peer("refuses")
    measured(tmp_path, "--ops", "train", "--against", "torch", "--layouts", "replicas")
    assert "torch: no figure in any row" in capsys.readouterr().out


def test_a_peer_that_does_not_come_up_ends_the_run_before_the_work(fake_peer, capsys):
    fake_peer("absent")
    assert main(["bench", *SHORT, "--against", "torch"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "peer torch ended with exit code 1: no module named fake" in printed.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cases", "no-such"], 2, "cases must be among 100x100, 128x1024"),
        (["--cases", "128x1024", "--layouts", "NHWC"], 2, "cases must leave one of the layouts NHWC"),
        (["--layouts", "CHWN"], 2, "layouts must be among flat, NCHW, NHWC, replicas, got 'CHWN'"),
        (["--ops", "train,forward"], 2, "ops must be among train, train-relu"),
        (
            ["--ops", "sgd-step", "--dtypes", "float32,float16"],
            2,
            "dtypes must be among float32, float64 with sgd-step",
        ),
        (["--ops", "adam-step", "--plot", "figure.png"], 2, "plot must be left out if no op of batch norm is"),
        (["--dtypes", "int8"], 2, "dtypes must be among float32, float64, float16, bfloat16, got 'int8'"),
        (["--against", "keras"], 2, "against must be among torch, jax, tutorial, torch-compile, cudnn, got 'keras'"),
        (["--seconds", "0"], 2, "--seconds"),
        (["--cases", ""], 2, "cases must name at least one, got ''; or leave it out"),
        (["--ops", ","], 2, "ops must name at least one, got ','"),
        (["--dtypes", ""], 2, "dtypes must name at least one, got ''"),
        (["--layouts", ""], 2, "layouts must name at least one, got ''"),
        (["--against", " "], 2, "against must name at least one, got ' '"),
        (["--json", "same.png", "--plot", "./same.png"], 2, "must be another file than --json"),
        (["--plot", "figure.txt"], 2, "must end with one of .png, .pdf, .svg"),
        (["--backend", "no-such"], 1, "no backend is named 'no-such'"),
        (["--backend", "strict", "--against", "tutorial"], 2, "no peer computes on its arrays"),
        (
            ["--backend", "numpy", "--against", "torch,cudnn"],
            2,
            "against must be among torch, jax, tutorial, torch-compile with backend numpy, got 'cudnn'",
        ),
    ],
)
def test_a_mistake_is_told_before_the_work(capsys, options, code, said):
    assert main(["bench", *options]) == code
    printed = capsys.readouterr()
    assert said in " ".join(printed.err.split()).replace("│ ", "").replace(" │", "")
    assert printed.out == ""


def test_a_peer_that_is_not_installed_is_told_with_the_command(monkeypatch, capsys):
    monkeypatch.setitem(peers.PACKAGES, "jax", "no_such_package")
    assert main(["bench", *SHORT, "--against", "jax"]) == 1
    assert "run pip install no_such_package" in capsys.readouterr().err


def test_a_missing_matplotlib_is_told_before_the_work(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", *SHORT, "--plot", str(tmp_path / "figure.png")]) == 1
    printed = capsys.readouterr()
    assert "the figure needs matplotlib; in a clone of the repository, run pip install '.[demo]'" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path, option, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["bench", *SHORT, option, str(tmp_path / "file" / "below.png")]) == 1
    printed = capsys.readouterr()
    assert "cannot write to" in printed.err
    assert f"choose another {option}" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("column", ["share", "/floor", "ref"])
def test_a_column_is_explained_below_the_table_and_in_the_help(column, capsys):
    assert main(["bench", "--cases", "100x100", "--ops", "backward", "--seconds", "0.002"]) == 0
    table, *legend = capsys.readouterr().out.partition("ref\n")[2].splitlines()[1:]
    assert table.startswith("100x100"), "the last row"
    (line,) = (line for line in legend if line.startswith(column))
    assert main(["bench", "--help"]) == 0
    assert line in " ".join(capsys.readouterr().out.split())


def test_the_plot_is_a_picture(tmp_path):
    path = tmp_path / "figure.png"
    assert main(["bench", *SHORT, "--no-reference", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_every_backend_is_measured_by_its_own_name(backend, tmp_path):
    file = measured(tmp_path, "--backend", backend.key, "--ops", "train,inference,backward-relu", "--layouts", "flat")
    assert {row["backend"] for row in file["records"]} == {backend.key}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_an_interrupted_run_keeps_what_was_measured(tmp_path):
    assert SCRIPT is not None
    command = [SCRIPT, "bench", "--cases", "100x100", "--seconds", "0.2", "--no-reference", "--json", "rows.json"]
    with subprocess.Popen(
        [*command, "--against", "tutorial"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}, text=True, encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job has ignored
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("100x100"):
                break
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    file = json.loads((tmp_path / "rows.json").read_text())
    assert 1 <= len(file["records"]) < len(rows.plan(measure.cases(), rows.Settings(cases=())))
    assert "tutorial / bnkit: geometric mean" in printed


def test_the_worst_row_is_that_of_the_smallest_ratio():
    made = [{"op": op, "peers": {"torch": {"ratio": r}}} for op, r in (("a", 2.0), ("b", 0.5), ("c", 4.0))]
    made.append({"op": "d", "peers": {"torch": {"skipped": "why"}}})
    result = summary.against(made, "torch")
    assert (result.rows, result.worst["op"]) == (3, "b")
    assert result.geometric_mean == pytest.approx(4 ** (1 / 3))
    assert summary.against(made, "jax") is None
