"""An axis: the place of a value on it, and its ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float | None:
        """The share of the axis below `value`: 0 at `low`, 1 at `high`; None for a value <= 0 if `log`."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return None if value <= 0 else math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Round values from low to high with their labels: at least two, and at most `most`."""
        if not self.log:
            return _linear(self.low, self.high, most)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for mantissas in ((1, 2, 5), (1, 3), (1,)):
            marks = [m * 10.0**p for p in range(first, last + 1) for m in mantissas]
            inside = [mark for mark in marks if self.low <= mark * (1 + 1e-9) and mark <= self.high * (1 + 1e-9)]
            if 2 <= len(inside) <= most:
                break
        if len(inside) < 2:
            return _linear(self.low, self.high, most)
        return [(mark, _decade(mark)) for mark in inside[:: -(-len(inside) // most)]]


def around(values: Iterable[float], *, log: bool = False, margin: float = 0.04) -> Axis:
    """The axis from the lowest to the highest of `values`, longer at both ends by `margin` of its length.

    A logarithmic axis ignores values that are not above 0. Without any value, the axis goes from about 1 to 2.
    """
    kept = [v for v in values if not log or v > 0]
    low, high = (min(kept), max(kept)) if kept else (1.0, 2.0)
    if log:
        factor = (high / low) ** margin if high > low else 2.0
        return Axis(low / factor, high * factor, log=True)
    spare = (high - low) * margin if high > low else abs(low) / 2 or 1.0
    return Axis(low - spare, high + spare)


def number(value: float, *, digits: int = 4) -> str:
    """The value as text with `digits` significant digits, or with all digits before the point.

    Below 0.0001 and from ten million on it has a power of ten: `number(1e-5)` is "10⁻⁵".
    """
    if value == 0 or not math.isfinite(value):
        return f"{value + 0:g}".replace("-", "−")
    rounded = float(f"{value:.{digits}g}")
    if 1e-4 <= abs(rounded) < 1e7:
        text = f"{value:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"
    else:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        times = mantissa[:-1] if mantissa in ("1", "-1") else f"{mantissa}·"
        text = times + _power(int(exponent))
    return text.replace("-", "−")


def _linear(low: float, high: float, most: int) -> list[tuple[float, str]]:
    length = high - low
    power = 10.0 ** math.floor(math.log10(length / most))
    steps = (m * power for m in (1, 2, 5, 10, 20, 50))
    step = next(s for s in steps if math.floor(high / s + 1e-9) - math.ceil(low / s - 1e-9) < most)
    marks = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(m * step, _short(m * step)) for m in marks]


def _short(value: float) -> str:
    """A short label, for a small panel: 20k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if size <= abs(value) < 1e9:
            return number(value / (1000 if letter == "k" else 1e6)) + letter
    return number(value)


def _decade(value: float) -> str:
    exponent = round(math.log10(value))
    far = not -3 <= exponent <= 5 and math.isclose(value, 10.0**exponent)
    return _power(exponent) if far else _short(value)


def _power(exponent: int) -> str:
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"
