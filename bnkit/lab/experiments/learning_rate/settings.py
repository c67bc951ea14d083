"""The settings of the learning-rate experiment."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from bnkit.lab.experiments import settings as shared
from bnkit.lab.experiments.settings import Count, Meaning, NonNegative, OneOf, Several, Steps, Widths

Cell = tuple[float, float, str]  # initial scale, learning rate and activation
# Test accuracy by initial scale, learning rate and activation: plain, with batch norm.
PUBLISHED = {
    (0.05, 0.01, "relu"): (0.9748, 0.9803),
    (0.05, 0.01, "sigmoid"): (0.8271, 0.9732),
    (0.05, 1.0, "relu"): (0.0980, 0.9834),
    (0.05, 1.0, "sigmoid"): (0.9752, 0.9812),
    (0.05, 2.0, "relu"): (0.1010, 0.9827),
    (0.05, 2.0, "sigmoid"): (0.9782, 0.9782),
    (5.0, 0.01, "relu"): (0.0980, 0.7990),
    (5.0, 0.01, "sigmoid"): (0.2270, 0.8527),
    (5.0, 1.0, "relu"): (0.1135, 0.9208),
    (5.0, 1.0, "sigmoid"): (0.8957, 0.9505),
    (5.0, 2.0, "relu"): (0.0980, 0.9054),
    (5.0, 2.0, "sigmoid"): (0.9066, 0.9583),
}
PAPER = (0.05, 0.5, "sigmoid")

_Activation = Annotated[str, OneOf("activation", ("relu", "sigmoid", "tanh"))]
_Cell = Annotated[
    tuple[NonNegative, NonNegative, _Activation],
    Meaning("each be an initial scale, a learning rate and an activation"),
]


@dataclass(frozen=True)
class Settings(shared.Settings):
    """The defaults are the lesson's, but for the dataset and the number of seeds.

    cells: initial scale, learning rate and activation of each network. epochs: passes over the training images, each
    of as many updates as there are whole batches. measured: the numbers of updates after which the networks are
    measured, besides the last.
    """

    epochs: Count = 50
    cells: Annotated[tuple[_Cell, ...], Several()] = (*PUBLISHED, PAPER)
    hidden: Widths = (100, 100, 100)
    batch_size: Count = 60
    decay: NonNegative = 0.99
    eps: NonNegative = 1e-3
    measured: Steps = (
        *(100, 200, 500, 1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 14_000),
        *range(20_000, 50_001, 6_000),
    )
    percentile_rows: Count = 1_000


def quick(settings: Settings) -> Settings:
    return dataclasses.replace(settings, seeds=1, epochs=1, measured=(100, 300))
