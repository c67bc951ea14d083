"""The settings of the batch-size experiment, and its kinds of networks."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from bnkit.lab.experiments import settings as shared
from bnkit.lab.experiments.settings import Count, Counts, NonNegative, Whole, Widths

PLAIN, NORM, GHOST, SHARED, OWN = "plain", "batch norm", "ghost batches", "two ranks, shared", "two ranks, own"


@dataclass(frozen=True)
class Settings(shared.Settings):
    """lr: at a batch of lr_batch rows, in proportion at others."""

    epochs: Count = 5
    rows: Count = 5000
    batches: Counts = (2, 4, 8, 16, 32, 64, 128, 256, 512)
    rank_batches: Counts = (4, 16, 64, 256)  # of both ranks together
    hidden: Widths = (100, 100)
    lr: NonNegative = 0.1
    lr_batch: Count = 128
    draws: Count = 50  # of batches, to measure the statistics' noise
    eps: NonNegative = 1e-5
    correction: Annotated[int, Whole(least=0)] = 1


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=1, rows=min(settings.rows, 1000))
