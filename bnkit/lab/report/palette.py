"""The page's colours in a light and a dark theme, and the CSS class of each style."""

from bnkit.lab.experiments.findings import STYLES
from bnkit.lab.experiments.styles import LINE_CONTRAST, MARKERS, colours

# By the name of the CSS variable: on a light page, on a dark page.
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
_CONTRAST = (LINE_CONTRAST, 4.5)  # a thin line on a dark page needs more
_DASH = 2  # CSS pixels: the width of a line, which is the unit of the dashes in STYLES
# From the marked point. A round or square cap draws the first two, so that they keep their shape in a stretched SVG.
_MARKER_PATHS = {"o": "h.01", "s": "h.01", "|": "m0-7v14", "x": "m-5-6l10 12m0-12l-10 12"}


def series(theme: int) -> dict[str, str]:
    """Each style's colour on a card; theme: 0 light, 1 dark."""
    return colours(COLOURS["card"][theme], least=_CONTRAST[theme])


def css() -> str:
    """The CSS variables of both themes, and a class for each style: `c0` for the first of STYLES."""
    light, dark = (_variables(theme) for theme in (0, 1))
    rules = [
        f":root{{color-scheme:light;{light}}}",
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}",
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}",
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}",
    ]
    for style, (_, dashes) in STYLES.items():
        name, marker = style_class(style), MARKERS[style]
        rules.append(f".{name}{{--c:var(--{name})}}")
        if dashes:
            lengths = " ".join(f"{_DASH * length:g}" for length in dashes)
            rules.append(f".{name} .mean,.{name} .bars{{stroke-dasharray:{lengths}}}")
        if marker.shape in "os":
            rules.append(
                f".{name} .mark{{stroke-linecap:{'round' if marker.shape == 'o' else 'square'};stroke-width:6px}}"
            )
    return "\n".join(rules)


def style_class(style: str) -> str:
    return f"c{list(STYLES).index(style)}"


def marker_path(style: str) -> str:
    """The SVG path of the style's marker, to follow a move to the marked point."""
    return _MARKER_PATHS[MARKERS[style].shape]


def is_hollow(style: str) -> bool:
    return not MARKERS[style].filled


def _variables(theme: int) -> str:
    named = {name: pair[theme] for name, pair in COLOURS.items()}
    named |= {style_class(style): colour for style, colour in series(theme).items()}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())
