"""The settings of the weight-scale experiment."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bnkit.lab.experiments import settings as shared
from bnkit.lab.experiments.settings import Count, NonNegative, Several

SCALES = tuple(float(s) for s in np.logspace(0, -4, num=16))


@dataclass(frozen=True)
class Settings(shared.Settings):
    """The defaults are the tutorial's, but for the dataset and the number of seeds."""

    scales: Annotated[tuple[NonNegative, ...], Several()] = SCALES
    rows: Count = 1000
    batch_size: Count = 100
    lr: NonNegative = 0.01
    eps: NonNegative = 1e-6  # of the size of the variance at small scales: another eps gives another table
    initial_running_var: NonNegative = 0.0


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=min(settings.epochs, 5))
