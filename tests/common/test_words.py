"""Numbers as reports write them."""

import math

import pytest

from common.words import number, quantity


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.4, 0, "0.40"),
        (4.24, 0, "4.2"),
        (13.3, 0, "13"),
        (238.9, 0, "239"),
        (0.042, 1, "0.042"),
        (0.0996, 1, "0.100"),
        (1.04, 1, "1.0"),
        (31250.0, 1, "31250.0"),
        (0.0, 1, "0.0"),
        (-0.4, 0, "-0.40"),
        (None, 1, "–"),
        (math.inf, 1, "–"),
        (math.nan, 1, "–"),
    ],
)
def test_a_quantity_has_two_significant_digits(value, digits, text):
    assert quantity(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12346"), (31.25, "31.2"), (0.398, "0.398"), (0.00398, "0.0040"),
     (0.000042, "0.000042"), (0.0, "0.00")],
)  # fmt: skip
def test_three_significant_digits_but_few_decimals(value, text):
    assert number(value, None) == text
