"""The look of the styles: contrast, and markers that differ."""

import pytest

from bnkit.lab.experiments import styles
from bnkit.lab.experiments.findings import STYLES


def test_a_style_that_is_legible_on_white_keeps_its_colour():
    assert styles.colours("#ffffff")["batch norm"] == STYLES["batch norm"][0].lower()


def test_contrast_is_wcags():
    assert styles.contrast("#ffffff", "#000000") == pytest.approx(21)
    assert styles.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # WCAG's well-known near miss


@pytest.mark.parametrize("background", ["#ffffff", "#181e24", "#000000"])
def test_every_style_has_the_least_contrast_on_any_background(background):
    for colour in styles.colours(background, least=4.5).values():
        assert styles.contrast(colour, background) >= 4.5


def test_no_two_styles_have_the_same_marker():
    assert styles.MARKERS.keys() == STYLES.keys()
    assert len(set(styles.MARKERS.values())) == len(STYLES)
