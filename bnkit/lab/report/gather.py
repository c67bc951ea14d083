"""The record files of a folder, and the findings of their experiments."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnkit.lab import experiments
from bnkit.lab.experiments import records as record_files
from bnkit.lab.experiments.findings import Findings


@dataclass(frozen=True)
class Experiment:
    """A record file: the experiment's name, its settings, versions and machine, and its findings."""

    name: str
    file: str  # the file's name, without its folder
    settings: dict[str, Any]
    versions: dict[str, Any]
    machine: dict[str, Any]
    findings: Findings


def gather(folder: str | os.PathLike[str]) -> tuple[list[Experiment], dict[str, str]]:
    """The experiments whose record files are in `folder`, in the order of QUESTIONS; and the .json files left out.

    The second value has, for the name of each file left out, the reason. A record file has the name that `bnkit run`
    gives it, weight_scale.json, or that name with a suffix, weight_scale-laptop.json. The file of a quick run,
    weight_scale_quick.json, is left out if the folder has a full run of the experiment. FileNotFoundError if `folder`
    does not exist or has no record file; ValueError, which names the file, if a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} must be a folder with record files; make them by bnkit run --out {folder}")
    left_out: dict[str, str] = {}
    known: list[tuple[Path, str, bool]] = []
    for path in sorted(folder.glob("*.json")):
        named = experiments.of_file(path.stem)
        if named is None:
            left_out[path.name] = "not the records of an experiment"
        else:
            known.append((path, *named))
    if not known:
        raise FileNotFoundError(f"{folder} holds no record file of an experiment; make one by bnkit run --out {folder}")
    in_full = {name for _, name, quick in known if not quick}
    read = []
    for path, name, quick in known:
        if quick and name in in_full:
            left_out[path.name] = "a quick run, and the folder holds a full one"
        else:
            read.append(_read(path, name))
    return sorted(read, key=lambda e: (list(experiments.QUESTIONS).index(e.name), Path(e.file).stem)), left_out


def _read(path: Path, name: str) -> Experiment:
    content = record_files.read(path)
    for part, kind in {"versions": dict, "machine": dict, "records": list}.items():
        if not isinstance(content.get(part), kind):
            raise record_files.damaged(path, f"no {part}")
    if not content["records"]:
        raise record_files.damaged(path, "its records are empty")
    experiment = experiments.load(name)
    settings = record_files.settings_of(content, path, experiment.settings, name)
    try:
        findings = experiment.findings(content["records"], settings)
    except Exception as error:  # a record may have any shape
        raise record_files.damaged(path, f"{type(error).__name__}: {error}") from error
    return Experiment(name, path.name, content["settings"], content["versions"], content["machine"], findings)
