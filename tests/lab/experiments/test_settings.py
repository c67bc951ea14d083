"""The constraints on the fields of settings: which values they refuse, and what the message says."""

import dataclasses
from typing import Annotated

import pytest

from bnkit.lab import experiments
from bnkit.lab.experiments import settings as shared
from bnkit.lab.experiments.settings import Counts, Meaning, NonNegative, OneOf, Several, Steps, Whole, check


@dataclasses.dataclass(frozen=True)
class Settings(shared.Settings):
    small: Annotated[int, Whole(least=2, below=5)] = 2
    rate: NonNegative = 0.5
    sizes: Counts = (1, 2)
    steps: Steps = ()
    inits: Annotated[tuple[str | NonNegative, ...], Several()] = ("he", 1.0)
    pairs: Annotated[
        tuple[Annotated[tuple[NonNegative, Annotated[str, OneOf("kind", ("a", "b"))]], Meaning("each be a pair")], ...],
        Several(),
    ] = ((1.0, "a"),)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"small": 4},
        {"rate": 1},
        {"sizes": [3]},
        {"steps": (5,)},
        {"inits": (2,)},
        {"pairs": ((0.0, "b"), (0.0, "a"))},
    ],
)
def test_values_in_range_are_taken(changes):
    check(Settings(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"small": 1}, "small must be at least 2 and below 5, got 1"),
        ({"small": 5}, "small must be at least 2 and below 5, got 5"),
        ({"small": 2.0}, "small must be like 2, got 2.0"),
        ({"small": True}, "small must be like 2, got True"),
        ({"rate": float("inf")}, "rate must be a finite number of at least 0, got inf"),
        ({"rate": "fast"}, "rate must be like 0.5, got 'fast'"),
        ({"sizes": ()}, "sizes must hold at least one value, got none"),
        ({"sizes": (1, 1)}, "sizes must hold each value once, got 1 more than once"),
        ({"sizes": (0,)}, "sizes must be at least 1, got 0"),
        ({"sizes": 3}, "sizes must be several like 1, 2, got 3"),
        ({"inits": (-1.0,)}, "inits must be a finite number of at least 0, got -1"),
        ({"inits": (None,)}, "inits must be several like 'he', 1.0, got None"),
        ({"pairs": ((1.0,),)}, r"pairs must each be a pair, got \(1.0,\)"),
        ({"pairs": ((1.0, "c"),)}, "kind must be"),
        ({"data_dir": 3}, "data_dir must be a text, or left out, got 3"),
    ],
)
def test_values_that_a_constraint_excludes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(Settings(**changes))


@pytest.mark.parametrize("name", experiments.QUESTIONS)
def test_every_setting_of_an_experiment_refuses_another_type(name):
    settings = experiments.load(name).settings()
    for field in dataclasses.fields(settings):
        with pytest.raises(ValueError, match=f"^{field.name} must "):
            check(dataclasses.replace(settings, **{field.name: {}}))
