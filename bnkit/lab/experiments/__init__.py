"""The tutorial's claims about batch norm as experiments, one file each, measured beside the published figures.

Each module has

- `Settings`, a frozen dataclass of what JSON can hold, whose defaults are the published setting but for the dataset:
  data, data_dir, backend, seeds, and epochs where that is what is counted;
- `quick(settings)`, the same in 20 seconds at most;
- `run(settings, *, on_progress=None)`, the records: flat dictionaries for JSON; it prints nothing. A long one takes
  `checkpoint=None` too: a file that it writes and, where it exists, goes on from, to the same records;
- but for weight-scale, `plan(settings)`, the parts of it that may run at the same time;
- `findings(records, settings)`, charts, published figures beside measured ones, and verdicts. The decorator
  `judging.judged` withholds the verdicts of a run that is too short;
- `plot(records)`, the charts as a figure of matplotlib.
"""

import importlib
from typing import Any

__all__ = ["QUESTIONS", "file_stem", "load"]


def __dir__() -> list[str]:
    return list(__all__)


# What is asked, by the names of the commands; a module is imported when it is run.
QUESTIONS = {
    "weight-scale": "Does batch norm make learning less dependent on the initial weights?",
    "learning-rate": "Does batch norm allow larger learning rates, and so faster learning?",
    "overfitting": "Does batch norm suppress overfitting?",
    "activations": "Does batch norm keep every layer's activations spread, whatever the initial weights?",
    "batch-size": "What do small batches cost batch norm, and do ghost batches or shared statistics help?",
}


def load(name: str) -> Any:
    """The module of the experiment that is called `name` in `QUESTIONS`."""
    return importlib.import_module(f"{__name__}.{file_stem(name)}")


def file_stem(name: str, *, quick: bool = False) -> str:
    """The experiment's name as modules and result files have it; a quick run's files have names of their own."""
    return name.replace("-", "_") + ("_quick" if quick else "")


def of_file(stem: str) -> tuple[str, bool] | None:
    """The experiment that left a file with this stem, and whether its run was quick; None for another file.

    A suffix after a hyphen is ignored: weight_scale-laptop belongs to weight-scale.
    """
    known = {file_stem(name, quick=quick): (name, quick) for name in QUESTIONS for quick in (False, True)}
    return known.get(stem.partition("-")[0])
