"""The tutorial's claims about batch norm as experiments, a folder each, measured beside the published figures.

Each folder has `settings.py` (what is run), `parts.py` (the trainings that return the records) and `claims.py` (charts,
tables and verdicts). Its `EXPERIMENT` is an `experiment.Experiment`, whose parts are also names of the folder:
`weight_scale.run(weight_scale.Settings())`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnkit.lab.experiments.experiment import Experiment
    from bnkit.lab.experiments.settings import Settings

__all__ = ["QUESTIONS", "file_stem", "load"]


def __dir__() -> list[str]:
    return list(__all__)


# By the names of the commands; an experiment is imported when it is loaded.
QUESTIONS = {
    "weight-scale": "Does batch norm make learning less dependent on the initial weights?",
    "learning-rate": "Does batch norm allow larger learning rates, and so faster learning?",
    "overfitting": "Does batch norm suppress overfitting?",
    "activations": "Does batch norm keep every layer's activations spread, whatever the initial weights?",
    "batch-size": "What do small batches cost batch norm, and do ghost batches or shared statistics help?",
}


def load(name: str) -> "Experiment[Settings]":
    """The experiment of this name in `QUESTIONS`; its settings are instances of its `settings` class."""
    experiment: Experiment[Settings] = importlib.import_module(f"{__name__}.{file_stem(name)}").EXPERIMENT
    return experiment


def file_stem(name: str, *, quick: bool = False) -> str:
    """The experiment's name in modules and result files; the files of a quick run have another name."""
    return name.replace("-", "_") + ("_quick" if quick else "")


def of_file(stem: str) -> tuple[str, bool] | None:
    """The experiment of a result file with this stem, and whether its run was quick; None for another file.

    A suffix after a hyphen is ignored: weight_scale-laptop belongs to weight-scale.
    """
    known = {file_stem(name, quick=quick): (name, quick) for name in QUESTIONS for quick in (False, True)}
    return known.get(stem.partition("-")[0])
