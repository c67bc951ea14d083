"""The record of an experiment, which the command line and the report read."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from bnkit.lab.experiments import runner
from bnkit.lab.experiments.drawing import Figure, draw
from bnkit.lab.experiments.findings import Chart, Findings
from bnkit.lab.experiments.judging import judged
from bnkit.lab.experiments.plan import Plan
from bnkit.lab.experiments.records import Record
from bnkit.lab.experiments.settings import Settings

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """A question, and how it is answered.

    settings: the class whose defaults are the published setting, but for the dataset. quick: smaller settings, of
    20 seconds at most. plan: the parts, which return the records. charts: of the records. claims: charts, published
    figures beside measured ones, and verdicts. arrange: the charts as one figure.
    """

    name: str
    question: str
    settings: type[S]
    quick: Callable[[S], S]
    plan: Callable[[S], Plan]
    claims: Callable[[list[Record], S], Findings]
    charts: Callable[[list[Record]], tuple[Chart, ...]]
    arrange: Callable[[Sequence[Chart]], Figure] = draw

    def run(
        self,
        settings: S,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        executor: Executor | None = None,
    ) -> list[Record]:
        """The records: flat dictionaries for JSON. Prints nothing; `runner.run` describes the arguments."""
        return runner.run(self.plan, settings, on_progress=on_progress, checkpoint=checkpoint, executor=executor)

    def findings(self, records: list[Record], settings: S) -> Findings:
        """`claims`; a run that is too short gets no verdict."""
        return judged(self.claims(records, settings), settings)

    def plot(self, records: list[Record]) -> Figure:
        return self.arrange(self.charts(records))
