"""Axes: round ticks, short numbers, and a length for whatever values."""

import math
import random

import pytest

from bnkit.lab.experiments.axes import Axis, around, number


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, "0 0.5 1"),
        (0, 50_000, "0 20k 40k"),
        (-1.04, 1.04, "−1 −0.5 0 0.5 1"),
        (0.97, 0.985, "0.97 0.975 0.98 0.985"),
        (1e6, 3e6, "1M 1.5M 2M 2.5M 3M"),
        (0, 0.3, "0 0.1 0.2 0.3"),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert " ".join(text for _, text in Axis(low, high).ticks(5)) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1e-4, 1, "10⁻⁴ 0.001 0.01 0.1 1"),
        (8.9, 56_000, "10 100 1,000 10k"),
        (2, 512, "3 10 30 100 300"),
        (1, 10, "1 2 5 10"),
        (3, 4, "3 3.5 4"),
        (1e-8, 1e-2, "10⁻⁸ 10⁻⁶ 10⁻⁴ 0.01"),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_powers_or_round(low, high, expected):
    assert " ".join(text for _, text in Axis(low, high, log=True).ticks(5)) == expected


@pytest.mark.parametrize("log", [False, True])
def test_there_are_from_two_to_five_ticks_inside_the_axis(log):
    draw = random.Random(0)
    for _ in range(500):
        low = 10 ** draw.uniform(-9, 9)
        axis = Axis(low, low * (1 + 10 ** draw.uniform(-2, 9)), log=log)
        ticks = axis.ticks(5)
        assert 2 <= len(ticks) <= 5
        assert all(-1e-6 <= axis.place(value) <= 1 + 1e-6 for value, _ in ticks)
        assert len({text for _, text in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.97483, "0.9748"), (-0.0, "0"), (12345.6, "12,346"), (1e-5, "10⁻⁵"), (-2.5e-9, "−2.5·10⁻⁹"), (1e20, "10²⁰")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_axes_of_equal_or_no_values_have_a_length():
    for log in (False, True):
        for values in ([], [3.0], [0.0, 0.0], [-1.0]):
            axis = around(values, log=log)
            assert axis.low < axis.high
            assert math.isfinite(axis.low)
