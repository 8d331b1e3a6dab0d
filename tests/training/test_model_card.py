"""What the card says of the precision that `auto` aims at."""

import pytest

from tests.tiny_tagger import TAXONOMY
from training.model_card import target
from training.recipe import CalibrationSection


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ({}, "95%"),
        ({"kind": 0.985}, "95% (kind 98.5%)"),
        ({"colour": 0.9, "kind": 0.9, "material": 0.8}, "90% (material 80%)"),
    ],
)
def test_the_precision_of_most_attributes_is_said_and_that_of_each_other_one(targets, words):
    assert target(CalibrationSection(targets=targets), TAXONOMY) == words
