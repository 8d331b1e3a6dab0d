"""What cells of every kind of file say, and which of them are measures."""

import math

import numpy as np
import pandas as pd
import pytest

from training.cells import cell, is_number, text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ""),
        (math.nan, ""),
        (pd.NA, ""),
        (pd.NaT, ""),
        (np.datetime64("NaT"), ""),
        (np.float32("nan"), ""),
        (np.float32(38), "38"),
        (np.float32(0.2), "0.2"),
        (38.0, "38"),
        (38.5, "38.5"),
        ("nan", "nan"),
        (" NaT\0", "NaT"),
    ],
)
def test_nothing_of_any_kind_is_no_value_and_a_number_is_written_as_it_was_meant(content, said):
    assert text(content) == said


@pytest.mark.parametrize(
    "value",
    [
        *(
            "19.99",
            "-3",
            "49,99 €",
            "1.234,56 EUR",
            "$5",
            "US$ 5.00",
            "USD 12",
            "10 cm",
            "10cm",
            "15 %",
            "3 m²",
        ),
        *("1'200", "2024-06-01", "2024-06-01 00:00:00", "2024-06-01T12:30:00Z", "1/6/2024", "01.06.24"),
    ],
)
def test_numbers_with_a_currency_or_a_unit_and_dates_are_measures(value):
    assert is_number(value)


@pytest.mark.parametrize(
    "value", ["red", "M6", "10 crimson", "S", "DIN 912", "2024-06-01 (new)", "38/40", "", "cm"]
)
def test_what_only_holds_a_number_is_none(value):
    assert not is_number(value)


def test_two_spellings_that_look_the_same_are_one_value():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert cell(decomposed, several=False) == (composed,)
    assert cell(f"{composed}|{decomposed} | ", several=True) == (composed,)
    assert cell([composed, f" {decomposed}", None], several=False) == (composed,)
