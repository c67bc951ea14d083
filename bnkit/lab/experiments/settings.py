"""What the settings of every experiment have in common; the defaults tell their types."""

import dataclasses
from typing import Any

from bnkit.backend import checks

_MOST_SEEDS = 2**16
_MAY_BE_EMPTY = ("measured",)
_MAY_REPEAT = ("hidden",)


def check(settings: Any) -> None:
    """ValueError, which names it, for a setting of another type than its default's, or out of every range.

    Numbers are finite and at least 0; ints are counts of at least 1, but for `correction`. A tuple holds something, but
    for `measured`, and each value once, but for `hidden`.
    """
    for field in dataclasses.fields(settings):
        name, value, default = field.name, getattr(settings, field.name), field.default
        if not _like(value, default):
            raise ValueError(f"{name} must be {_described(default)}, got {value!r}")
        if isinstance(default, tuple):
            if not value and name not in _MAY_BE_EMPTY:
                raise ValueError(f"{name} must hold at least one value, got none")
            repeated = [v for i, v in enumerate(value) if v in value[:i]]
            if repeated and name not in _MAY_REPEAT:
                raise ValueError(f"{name} must hold each value once, got {repeated[0]!r} more than once")
        _check_numbers(name, value, default)


def _check_numbers(name: str, value: Any, default: Any) -> None:
    if isinstance(value, (tuple, list)):
        some = [d for d in default if not isinstance(d, str)]  # of what else the tuple holds
        for v in value:
            _check_numbers(name, v, next((d for d in some if _like(v, d)), ""))
    elif isinstance(default, int):
        if name == "seeds":
            checks.check_int(name, value, below=_MOST_SEEDS)
        else:
            checks.check_int(name, value, least=0 if name == "correction" else 1)
    elif isinstance(default, float):
        checks.check_real(name, value, least=0.0)


def _like(value: Any, default: Any) -> bool:
    """Whether a value has the type of the setting's default, where None stands for a name that may be left out."""
    if default is None:
        return value is None or isinstance(value, str)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, tuple):
        return isinstance(value, (tuple, list)) and all(any(_like(v, d) for d in default) for v in value)
    return type(value) is type(default)


def _described(default: Any) -> str:
    if default is None:
        return "a text, or left out"
    if isinstance(default, tuple):
        return f"several like {', '.join(map(repr, default[:2]))}"
    return f"like {default!r}"
