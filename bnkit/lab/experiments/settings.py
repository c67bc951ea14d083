"""The settings that all experiments share, and the constraints on the fields of any settings.

A field's annotation holds its constraints, as in `lr: Annotated[float, Real(least=0.0)]`; `check` reads them.
"""

import dataclasses
import math
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

from bnkit.backend import checks


@runtime_checkable
class Constraint(Protocol):
    def check(self, name: str, value: object) -> None:
        """ValueError, which names the setting, unless the value is allowed."""


@dataclass(frozen=True)
class Whole:
    """An int from `least` up to, but not including, `below`."""

    least: int = 1
    below: float = math.inf

    def check(self, name: str, value: object) -> None:
        checks.check_int(name, value, least=self.least, below=self.below)


@dataclass(frozen=True)
class Real:
    """A finite number of at least `least`."""

    least: float = 0.0

    def check(self, name: str, value: object) -> None:
        checks.check_real(name, value, least=self.least)


@dataclass(frozen=True)
class OneOf:
    """One of `choices`, which the message calls `name`."""

    name: str
    choices: tuple[str, ...]

    def check(self, name: str, value: object) -> None:
        checks.check_choice(self.name, value, self.choices)


@dataclass(frozen=True)
class Several:
    """How many values a tuple may hold."""

    may_be_empty: bool = False
    may_repeat: bool = False

    def check(self, name: str, value: object) -> None:
        assert isinstance(value, (tuple, list))
        if not value and not self.may_be_empty:
            raise ValueError(f"{name} must hold at least one value, got none")
        repeated = [v for i, v in enumerate(value) if v in value[:i]]
        if repeated and not self.may_repeat:
            raise ValueError(f"{name} must hold each value once, got {repeated[0]!r} more than once")


@dataclass(frozen=True)
class Meaning:
    """What the message says after "must" where the value has another type."""

    text: str


Count = Annotated[int, Whole()]
NonNegative = Annotated[float, Real()]
Counts = Annotated[tuple[Count, ...], Several()]
Steps = Annotated[tuple[Count, ...], Several(may_be_empty=True)]
Widths = Annotated[tuple[Count, ...], Several(may_repeat=True)]


@dataclass(frozen=True)
class Settings:
    """What every experiment can set. The defaults of an experiment are the published setting, but for the dataset."""

    data: str = "digits"
    data_dir: str | None = None
    backend: str | None = None
    seeds: Annotated[int, Whole(below=2**16)] = 3
    epochs: Count = 20
    hidden: Widths = (100,) * 5
    dtype: str = "float32"
    eps: NonNegative = 1e-6
    correction: Annotated[int, Whole(least=0)] = 0
    decay: NonNegative = 0.9

    def norm(self, batch_norm: bool, *, ghost: int | None = None) -> dict[str, Any] | Literal[False]:
        """The argument `batch_norm` of MLP: the options of these settings, or False."""
        options = {"eps": self.eps, "correction": self.correction, "decay": self.decay, "ghost": ghost}
        return options if batch_norm else False


def check(settings: Settings) -> None:
    """ValueError, which names the setting, for a value that its field's type or constraints exclude."""
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        _check(field.name, getattr(settings, field.name), hints[field.name], _like(field.default))


def _check(name: str, value: object, hint: object, meaning: str) -> None:
    notes: tuple[object, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        notes = tuple(more)
    meaning = next((note.text for note in notes if isinstance(note, Meaning)), meaning)
    if get_origin(hint) in (Union, types.UnionType):
        fitting = next((option for option in get_args(hint) if _fits(value, option)), None)
    else:
        fitting = hint if _fits(value, hint) else None
    if fitting is None:
        raise ValueError(f"{name} must {meaning}, got {value!r}")
    if fitting is not hint:
        _check(name, value, fitting, meaning)
    for note in notes:
        if isinstance(note, Constraint):
            note.check(name, value)
    if isinstance(value, (tuple, list)):
        for element, element_hint in zip(value, _elements(fitting, len(value)), strict=True):
            _check(name, element, element_hint, meaning)


def _fits(value: object, hint: object) -> bool:
    """Whether the value has the type of the hint; a tuple's elements are not looked at."""
    if get_origin(hint) is Annotated:
        return _fits(value, get_args(hint)[0])
    if get_origin(hint) is tuple:
        return isinstance(value, (tuple, list)) and len(value) == len(_elements(hint, len(value)))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint


def _elements(hint: object, length: int) -> tuple[object, ...]:
    """The hint of each element of a tuple of this length."""
    hints = get_args(hint)
    return hints[:1] * length if hints[1:] == (...,) else hints


def _like(default: object) -> str:
    if default is None:
        return "be a text, or left out"
    if isinstance(default, tuple):
        return f"be several like {', '.join(map(repr, default[:2]))}"
    return f"be like {default!r}"
