"""The settings of the activations experiment."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from bnkit.lab.experiments import settings as shared
from bnkit.lab.experiments.settings import Count, NonNegative, OneOf, Several, Steps

# Of the histograms; a value beyond them counts in the first or last interval, NaN in the last.
EDGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, 3.0)}


@dataclass(frozen=True)
class Settings(shared.Settings):
    """epochs: of rows / batch_size updates. measured: after which epochs, besides at the start and the end."""

    measured: Steps = (1, 5)
    inits: Annotated[tuple[str | NonNegative, ...], Several()] = (1.0, 0.01, "xavier", "he")
    activations: Annotated[tuple[Annotated[str, OneOf("activations", tuple(EDGES))], ...], Several()] = (
        "sigmoid",
        "tanh",
        "relu",
    )
    rows: Count = 1000
    batch_size: Count = 100
    lr: NonNegative = 0.01
    bins: Count = 30
    least_std: NonNegative = 0.05  # over the rows, from which a unit is alive
    most_std: NonNegative = 10.0


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=min(settings.epochs, 3))
