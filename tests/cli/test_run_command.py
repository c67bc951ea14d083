"""`bnkit run`: the list, the settings from options and files, what is written, and what is refused."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys

import pytest
from commands import workplace as workplace

import bnkit
from bnkit.cli import main
from bnkit.lab import experiments
from bnkit.lab.experiments import activations, batch_size, learning_rate, overfitting, runner, weight_scale
from bnkit.lab.experiments.experiment import Experiment
from bnkit.lab.experiments.settings import check

pytestmark = pytest.mark.usefixtures("workplace")
LITTLE = {
    "data": "synthetic",
    "backend": "numpy",
    "seeds": 1,
    "epochs": 3,
    "rows": 40,
    "batch_size": 20,
    "hidden": (4,),
}
ELSEWHERE = weight_scale.Settings(data="synthetic", data_dir="there", epochs=2)


def change(monkeypatch, **changes):
    """Load an experiment with these changes of its record."""
    load = experiments.load
    monkeypatch.setattr(experiments, "load", lambda name: dataclasses.replace(load(name), **changes))


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_the_list_describes_every_experiment_without_importing_it(capsys):
    assert main(["run", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments.QUESTIONS)
    assert all(line.endswith("?") for line in lines)


@pytest.mark.parametrize("name", experiments.QUESTIONS)
def test_an_experiment_has_what_the_command_asks_of_it(name):
    experiment = experiments.load(name)
    assert (experiment.name, experiment.question) == (name, experiments.QUESTIONS[name])
    settings = experiment.settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seeds = 4
    assert {"data", "data_dir", "backend", "seeds", "epochs"} <= set(vars(settings))
    assert experiment.quick(settings).seeds == 1
    folder = importlib.import_module(f"bnkit.experiments.{experiments.file_stem(name)}")
    assert folder.__doc__.splitlines()[0].partition("?")[0] in experiments.QUESTIONS[name]


@pytest.fixture
def kept(workplace):
    """Writes a file of results that has these settings."""

    def write(like=ELSEWHERE, **changes):
        settings = vars(like) | changes
        path = workplace / "kept.json"
        path.write_text(json.dumps({"settings": settings, "records": []}))
        return str(path)

    return write


@pytest.mark.parametrize("options", [["--seeds", "4"], ["--epochs", "3"], ["--data", "digits"], ["--backend", "numpy"]])
def test_an_option_that_contradicts_the_file_is_refused(options, kept, capsys):
    assert main(["run", "weight-scale", "--from", kept(), *options]) == 2
    assert f"{options[0]} {options[1]} contradicts --from" in said(capsys)


def test_quick_contradicts_the_file_of_a_larger_run(kept, capsys):
    assert main(["run", "weight-scale", "--from", kept(), "--quick"]) == 2
    assert "--quick contradicts --from" in said(capsys)


def test_the_data_may_lie_elsewhere_than_the_file_says(kept, monkeypatch):
    asked = []
    monkeypatch.setattr(Experiment, "run", lambda self, settings, **_: asked.append(settings) or 1 / 0)
    main(["run", "weight-scale", "--from", kept(), "--data-dir", "here"])
    assert asked == [weight_scale.Settings(data="synthetic", data_dir="here", epochs=2)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is damaged or another"),
        ("[1]", "is damaged or another"),
        ("[" * 100_000, "is damaged or another"),
        ('{"records": []}', "is damaged or another"),
        ('{"settings": {"data": "mnist"}}', "it may be another experiment's"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line(content, text, workplace, capsys):
    (workplace / "kept.json").write_text(content)
    assert main(["run", "weight-scale", "--from", "kept.json"]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert "kept.json" in error
    assert len(error.splitlines()) == 1


def test_the_file_of_another_experiment_is_refused(kept, capsys):
    assert main(["run", "overfitting", "--from", kept()]) == 1
    assert "it may be another experiment's" in said(capsys)


def test_a_file_that_is_not_there_is_one_line(capsys):
    assert main(["run", "weight-scale", "--from", "nowhere.json"]) == 1
    assert "nowhere.json" in said(capsys)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seeds", "three"), ("seeds", True), ("seeds", 1.5), ("lr", True), ("scales", [1.0, "a"]), ("data_dir", 5)],
)
def test_a_setting_of_another_type_is_refused(name, value, kept, capsys):
    assert main(["run", "weight-scale", "--from", kept(**{name: value})]) == 1
    assert f"kept.json: {name} must be " in said(capsys)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("seeds", 0, "seeds must be at least 1 and below 65536, got 0"),
        ("seeds", 10**20, "seeds must be at least 1 and below 65536"),
        ("rows", -1, "rows must be at least 1, got -1"),
        ("correction", -1, "correction must be at least 0, got -1"),
        ("lr", -0.5, "lr must be a finite number of at least 0, got -0.5"),
        ("initial_running_var", float("nan"), "initial_running_var must be a finite number of at least 0, got nan"),
        ("scales", [1.0, float("inf")], "scales must be a finite number of at least 0, got inf"),
        ("scales", [], "scales must hold at least one value, got none"),
        ("scales", [1.0, 0.1, 1.0], "scales must hold each value once, got 1.0 more than once"),
        ("hidden", [], "hidden must hold at least one value, got none"),
        ("hidden", [0], "hidden must be at least 1, got 0"),
        ("hidden", 100, "hidden must be several like 100, 100, got 100"),
    ],
)
def test_a_setting_out_of_every_range_is_refused_before_the_data_are_loaded(
    name, value, text, kept, monkeypatch, capsys
):
    monkeypatch.setattr("bnkit.data.load", lambda *args, **kwargs: pytest.fail("loaded"))
    assert main(["run", "weight-scale", "--from", kept(**{name: value})]) == 1
    assert text in said(capsys)
    with pytest.raises(ValueError, match=text.split(", got")[0]):
        weight_scale.run(dataclasses.replace(ELSEWHERE, **{name: tuple(value) if type(value) is list else value}))


@pytest.mark.parametrize("name", experiments.QUESTIONS)
def test_the_defaults_and_the_quick_settings_are_in_range(name):
    experiment = experiments.load(name)
    check(experiment.settings())
    check(experiment.quick(experiment.settings()))


def test_what_is_given_beside_quick_stays(monkeypatch):
    asked = []
    monkeypatch.setattr(Experiment, "run", lambda self, settings, **_: asked.append(settings) or 1 / 0)
    main(["run", "weight-scale", "--quick", "--seeds", "2", "--epochs", "30"])
    main(["run", "weight-scale", "--quick"])
    assert [(s.seeds, s.epochs) for s in asked] == [(2, 30), (1, 5)]


@pytest.mark.parametrize("source", [["--quick"], ["--from", "weight_scale_quick.json"]])
def test_a_quick_run_and_its_repetition_have_files_of_their_own(source, workplace, kept, monkeypatch):
    made = weight_scale.Settings(**LITTLE, scales=(1.0, 0.1))
    os.rename(kept(made), "weight_scale_quick.json")
    change(monkeypatch, quick=lambda settings: made)
    assert main(["run", "weight-scale", *source, "--out", "results"]) == 0
    files = sorted(p.name for p in (workplace / "results").iterdir())
    assert files == ["weight_scale_quick.json", "weight_scale_quick.png"]


def test_a_quick_run_has_a_checkpoint_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(
        Experiment, "run", lambda self, settings, *, checkpoint, **_: asked.append(checkpoint.name) or 1 / 0
    )
    for options in ([], ["--quick"]):
        main(["run", "overfitting", *options])
    assert asked == ["overfitting.checkpoint", "overfitting_quick.checkpoint"]


def test_a_folder_where_a_result_goes_is_told_before_the_work(workplace, monkeypatch, capsys):
    (workplace / "weight_scale.png").mkdir()
    monkeypatch.setattr(Experiment, "run", lambda *args, **kwargs: pytest.fail("begun"))
    assert main(["run", "weight-scale"]) == 1
    assert "weight_scale.png must be a file or not exist" in said(capsys)


def test_a_figure_that_cannot_be_drawn_loses_no_records(workplace, kept, monkeypatch, capsys):
    change(monkeypatch, arrange=lambda charts: 1 / 0)
    assert main(["run", "weight-scale", "--from", kept(weight_scale.Settings(**LITTLE))]) == 1
    assert "wrote weight_scale.json" in capsys.readouterr().out


def test_a_pipe_without_unicode_gets_all_of_the_text(kept):
    source = kept(
        batch_size.Settings(**{k: v for k, v in LITTLE.items() if k != "batch_size"}, batches=(4, 8), rank_batches=(4,))
    )
    command = [sys.executable, "-m", "bnkit", "run", "batch-size", "--from", source]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, timeout=100)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"wrote batch_size.png" in done.stdout


def test_a_whole_number_may_stand_for_a_float(kept, monkeypatch):
    asked = []
    monkeypatch.setattr(Experiment, "run", lambda self, settings, **_: asked.append(settings) or 1 / 0)
    main(["run", "weight-scale", "--from", kept(lr=1)])
    assert asked[0].lr == 1


def test_a_run_from_a_file_is_that_run_again(workplace, kept):
    first = kept(weight_scale.Settings(**LITTLE, scales=(1.0, 0.1)))
    for source, out in ((first, "one"), ("one/weight_scale.json", "two")):
        assert main(["run", "weight-scale", "--from", source, "--seeds", "1", "--out", out]) == 0
    one, two = (json.loads((workplace / out / "weight_scale.json").read_text()) for out in ("one", "two"))
    assert one == two
    assert one["settings"]["scales"] == [1.0, 0.1]
    assert len(one["records"]) == 2 * 2 * 3
    assert sorted(p.name for p in (workplace / "two").iterdir()) == ["weight_scale.json", "weight_scale.png"]


def test_a_killed_run_goes_on_and_leaves_only_its_results(workplace, kept, monkeypatch, capsys):
    small = overfitting.Settings(**LITTLE, decay_epochs=3, search_lrs=(0.1,), search_batches=(20,))
    command = ["run", "overfitting", "--out", "results", "--from"]
    whole = Experiment.run

    def killed(self, settings, *, on_progress, checkpoint):
        def stop(done, total):
            if done > total / 2:
                raise KeyboardInterrupt

        return whole(self, settings, on_progress=stop, checkpoint=checkpoint)

    monkeypatch.setattr(Experiment, "run", killed)
    assert main([*command, kept(small)]) == 130
    assert [p.name for p in (workplace / "results").iterdir()] == ["overfitting.checkpoint"]
    path = re.escape(os.path.join("results", "overfitting.checkpoint"))
    assert re.search(f"kept . finished parts; the same command goes on from {path} ", said(capsys))
    monkeypatch.setattr(Experiment, "run", whole)
    assert main([*command, kept(small, seeds=2)]) == 1
    assert "must be of the same settings, versions, machine, data, but its settings differ" in said(capsys)
    assert main([*command, kept(small)]) == 0
    assert "going on from results" in capsys.readouterr().out
    assert sorted(p.name for p in (workplace / "results").iterdir()) == ["overfitting.json", "overfitting.png"]
    assert json.loads((workplace / "results" / "overfitting.json").read_text())["records"] == overfitting.run(small)


@pytest.mark.parametrize("name", experiments.QUESTIONS)
def test_a_run_that_is_interrupted_inside_its_first_part_resumes_there(name, workplace, monkeypatch, capsys):
    whole = Experiment.run
    monkeypatch.setattr(runner, "SAVED_EVERY", 0.0)

    def killed(self, settings, *, on_progress, checkpoint):
        def stop(done, total):
            if done == 2:
                raise KeyboardInterrupt

        return whole(self, settings, on_progress=stop, checkpoint=checkpoint)

    command = ["run", name, "--data", "synthetic", "--seeds", "1", "--epochs", "2"]
    monkeypatch.setenv("BNKIT_NUM_THREADS", "1")
    monkeypatch.setattr(Experiment, "run", killed)
    monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", 1)
    assert main(command) == 130
    assert "kept 1 unfinished part; the same command goes on from" in said(capsys)
    monkeypatch.setattr(runner, "SAVED_EVERY", 30.0)
    asked = []
    monkeypatch.setattr(Experiment, "run", lambda self, settings, **options: asked.append(settings) or 1 / 0)
    assert main(command) == 1
    assert "going on from" in capsys.readouterr().out
    path = workplace / f"{experiments.file_stem(name)}.checkpoint"
    resumed = []
    found = whole(experiments.load(name), asked[0], checkpoint=path, on_progress=lambda *n: resumed.append(n[0]))
    assert resumed[:2] == [0, 2], "the first update is not made again"
    assert found == whole(experiments.load(name), asked[0])


def test_an_interruption_before_anything_is_kept_says_so(monkeypatch, capsys):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "run", interrupted)
    assert main(["run", "weight-scale", "--data", "synthetic"]) == 130
    assert said(capsys) == "bnkit: nothing is kept yet, so the same command starts anew bnkit: interrupted"


def test_a_record_file_names_its_experiment_and_format(workplace, kept):
    assert main(["run", "weight-scale", "--from", kept(weight_scale.Settings(**LITTLE))]) == 0
    content = json.loads((workplace / "weight_scale.json").read_text())
    assert list(content) == ["experiment", "format", "settings", "versions", "machine", "records"]
    assert (content["experiment"], content["format"]) == ("weight-scale", 1)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"experiment": "overfitting"}, "kept.json must be a file of weight-scale, got one of overfitting"),
        ({"format": 2}, "kept.json must have format 1, got 2"),
    ],
)
def test_a_record_file_of_another_experiment_or_a_later_format_is_refused(keys, text, workplace, kept, capsys):
    path = workplace / kept()
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    assert main(["run", "weight-scale", "--from", str(path)]) == 1
    assert text in said(capsys)


def test_the_tables_stand_side_by_side_with_the_published_figures(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    row = {"seed": 0, "epoch": 20, "diverged": False}
    accuracies = {(1.0, False): 0.1, (1.0, True): 0.431, (0.1, False): 0.5, (0.1, True): 0.9}
    found = [row | {"scale": w, "batch_norm": k, "accuracy": a} for (w, k), a in accuracies.items()]
    monkeypatch.setattr(Experiment, "run", lambda *args, **kwargs: found)
    assert main(["run", "weight-scale", "--data", "mnist"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("│ 1 ")]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["1", "0.100", "0.103", "0.431", "0.431"]
    assert "published: the tutorial's own code" in out
    assert "does not matter: does not hold" in out


def test_a_figure_beyond_the_runs_range_is_marked(monkeypatch, capsys):
    row = {"seed": 0, "epoch": 20, "diverged": False, "scale": 1.0, "batch_norm": True, "accuracy": 0.6}
    monkeypatch.setattr(Experiment, "run", lambda *args, **kwargs: [row, row | {"batch_norm": False}])
    assert main(["run", "weight-scale", "--data", "mnist"]) == 0
    assert "0.431 *" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", [weight_scale, overfitting, batch_size, learning_rate, activations])
def test_a_damaged_checkpoint_is_told(experiment, workplace):
    (workplace / "c").write_text("{}")
    with pytest.raises(ValueError, match="c must be a checkpoint of an experiment"):
        experiment.run(experiment.Settings(data="synthetic"), checkpoint=workplace / "c")


def test_an_option_that_is_no_setting_of_the_experiment_is_refused(monkeypatch, capsys):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        data: str = "digits"

    change(monkeypatch, settings=Settings)
    assert main(["run", "weight-scale", "--epochs", "3"]) == 2
    assert "--epochs is no setting of weight-scale" in said(capsys)
