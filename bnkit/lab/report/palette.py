"""The page's colours, each for a light and a dark page, and the styles of `findings.STYLES` made legible on both."""

from bnkit.lab.experiments.findings import STYLES

# By the name of the CSS variable.
COLOURS = {
    "page": ("#f6f7f9", "#0f1317"),
    "card": ("#ffffff", "#181e24"),
    "text": ("#1a2026", "#e7ebef"),
    "muted": ("#56616c", "#a3aeb8"),
    "rule": ("#dde2e7", "#323b44"),
    "grid": ("#e4e9ed", "#2a343d"),
    "accent": ("#005c99", "#7cc4f5"),
    "holds": ("#0b6b43", "#5fd6a0"),
    "fails": ("#b3261e", "#ff9d94"),
    "depends": ("#7a5200", "#f0c060"),
}
# WCAG 2.2, 1.4.11, wants 3 for what a figure cannot be understood without; a thin line on black needs more.
LINE_CONTRAST = (3.0, 4.5)
_DASH = 2  # CSS pixels: the width of a line, in which STYLES gives its dashes


def series(theme: int) -> dict[str, str]:
    """Each style's colour on a card: that of STYLES where it is contrast enough; theme: 0 light, 1 dark."""
    background = COLOURS["card"][theme]
    return {name: legible(colour, background, theme) for name, (colour, _) in STYLES.items()}


def legible(colour: str, background: str, theme: int) -> str:
    """`colour`, mixed with as little black or (theme 1) white as gives LINE_CONTRAST on `background`."""
    channels = _channels(colour)
    for step in range(101):
        mixed = [round(c + (255 * theme - c) * step / 100) for c in channels]
        found = "#" + "".join(f"{c:02x}" for c in mixed)
        if contrast(found, background) >= LINE_CONTRAST[theme]:
            return found
    raise AssertionError(f"neither black nor white stands out on {background}")


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances, 1 to 21, as WCAG 2 has it."""
    low, high = sorted(_luminance(_channels(c)) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def css() -> str:
    """The variables of both themes, and a class for each style, `c0` the first of STYLES."""
    light, dark = (_variables(theme) for theme in (0, 1))
    rules = [
        f":root{{color-scheme:light;{light}}}",
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}",
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}",
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}",
    ]
    for index, (_, dashes) in enumerate(STYLES.values()):
        rules.append(f".c{index}{{--c:var(--c{index})}}")
        if dashes:
            lengths = " ".join(f"{_DASH * length:g}" for length in dashes)
            rules.append(f".c{index} .mean,.c{index} .bars{{stroke-dasharray:{lengths}}}")
    return "\n".join(rules)


def style_class(style: str) -> str:
    """ValueError where STYLES has no such style."""
    if style not in STYLES:
        raise ValueError(f"a style must be one of {', '.join(STYLES)}, got {style!r}")
    return f"c{list(STYLES).index(style)}"


def _variables(theme: int) -> str:
    named = {name: pair[theme] for name, pair in COLOURS.items()}
    named |= {f"c{index}": colour for index, colour in enumerate(series(theme).values())}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _luminance(channels: list[int]) -> float:
    shares = [c / 255 for c in channels]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
