"""Whether a run is long enough for a verdict on a claim."""

import dataclasses
from typing import Final

from bnkit.lab.experiments.findings import Findings
from bnkit.lab.experiments.settings import Settings

TOO_SHORT: Final = "too short to judge"
MIN_SEEDS = 3  # one or two seeds do not show how far the seeds differ
_LENGTHS = ("epochs", "rows")  # the settings that make a run shorter than the published one


def too_short(settings: Settings) -> str:
    """Why a run with these settings can judge no claim; empty where it can.

    A verdict needs `MIN_SEEDS` seeds, and as many epochs and training rows as the published run, whose settings are
    the defaults.
    """
    published = type(settings)()
    least = {"seeds": MIN_SEEDS} | {name: getattr(published, name, 0) for name in _LENGTHS}
    missing = [
        f"at least {needed:,} {name} (this run has {has:,})"
        for name, needed in least.items()
        if (has := getattr(settings, name, needed)) < needed
    ]
    return f"A verdict needs {' and '.join(missing)}." if missing else ""


def judged(findings: Findings, settings: Settings) -> Findings:
    """The findings; those of a run that is too short with the verdict `TOO_SHORT`, and the same numbers and rules."""
    why = too_short(settings)
    if not why:
        return findings
    verdicts = tuple(dataclasses.replace(v, verdict=TOO_SHORT) for v in findings.verdicts)
    return dataclasses.replace(findings, verdicts=verdicts, too_short=why)
