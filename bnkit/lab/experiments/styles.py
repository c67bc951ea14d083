"""The look of each style in `findings.STYLES`: a colour that is legible on its background, dashes, and a marker."""

from dataclasses import dataclass
from typing import Literal

from bnkit.lab.experiments.findings import STYLES


@dataclass(frozen=True)
class Marker:
    """A marker, by matplotlib's letter for it; `filled` has no meaning for a bar or a cross."""

    shape: Literal["o", "s", "|", "x"]
    filled: bool = True


# Markers keep two lines distinct where one covers the other, in print and for colour-blind readers.
MARKERS: dict[str, Marker] = {
    "batch norm": Marker("o"),
    "plain": Marker("s", filled=False),
    "third": Marker("s"),
    "fourth": Marker("o", filled=False),
    "fifth": Marker("|"),
    "sixth": Marker("x"),
}
LINE_CONTRAST = 3.0  # WCAG 2.2, 1.4.11: the least contrast for a graphic that carries meaning


def colours(background: str, *, least: float = LINE_CONTRAST) -> dict[str, str]:
    """Each style's colour on `background`: the colour in STYLES if its contrast is at least `least`."""
    return {name: legible(colour, background, least) for name, (colour, _) in STYLES.items()}


def legible(colour: str, background: str, least: float) -> str:
    """`colour` as #rrggbb, mixed with as little black or white as gives the contrast `least` on `background`.

    It is mixed with white on a dark background, and with black on a light one.
    """
    end = 255 if _luminance(background) < 0.18 else 0
    for step in range(101):
        channels = [round(c + (end - c) * step / 100) for c in _channels(colour)]
        mixed = "#" + "".join(f"{c:02x}" for c in channels)
        if contrast(mixed, background) >= least:
            return mixed
    raise AssertionError(f"neither black nor white has the contrast {least} on {background}")


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21. Source: WCAG 2.2, the definition of contrast ratio."""
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _luminance(colour: str) -> float:
    shares = [c / 255 for c in _channels(colour)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
