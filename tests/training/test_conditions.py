"""Each condition takes away what its name says and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.taxonomy import Attribute, Taxonomy
from training.conditions import CONDITIONS, shown
from training.glossary import read_glossary
from training.table import Row

TAXONOMY = Taxonomy((Attribute("colour", ("red", "blue")),))
ROW = Row("7", "Nike red bag", "a blue lining", (Path("bag.jpg"),), "g", {"colour": ("red",)})


@pytest.mark.parametrize(
    ("condition", "title", "description", "photos"),
    [
        ("as_is", "Nike red bag", "a blue lining", 1),
        ("masked_titles", "Nike bag", "a lining", 1),
        ("without_photos", "Nike red bag", "a blue lining", 0),
        ("without_text", "", "", 1),
    ],
)
def test_a_condition_shows(condition, title, description, photos):
    (row,) = shown([ROW], condition, TAXONOMY)
    assert (row.title, row.description, len(row.photos)) == (title, description, photos)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_identity_and_values_stay_under_every_condition(condition):
    (row,) = shown([ROW], condition, TAXONOMY)
    assert (row.id, row.group, row.values) == (ROW.id, ROW.group, ROW.values)


def test_wordings_are_masked_too():
    (row,) = shown([ROW], "masked_titles", TAXONOMY, ["Nike"])
    assert row.title == "bag"


def test_titles_in_the_language_of_a_glossary_are_masked_by_its_wordings():
    glossary = read_glossary(Path("training/glossaries/fashion-zh.toml"))
    title = replace(ROW, title="耐克男士藏青色弹力T恤", description="")
    (row,) = shown([title], "masked_titles", TAXONOMY, glossary.telling)
    assert row.title == "耐克 弹力"
