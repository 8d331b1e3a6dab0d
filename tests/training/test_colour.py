"""Photos may only change their colours where no attribute asks for them."""

import numpy as np
import pytest
from PIL import Image

from models.taxonomy import Attribute, Taxonomy
from training.augment import Augmenter
from training.colour import asks_for_colour, colour_attribute, jittered
from training.recipe import AugmentSection

KIND = Attribute("kind", ("shirt", "shoe", "red wine"))


@pytest.mark.parametrize(
    "attribute",
    [
        Attribute("base_colour", ("a", "b")),
        Attribute("Shoe Color", ("a", "b")),
        Attribute("baseColour", ("a", "b")),
        Attribute("颜色", ("a", "b")),
        Attribute("finish", ("Navy Blue", "Off White", "Matt")),
        Attribute("finish", ("红色", "蓝色")),
    ],
    ids=lambda attribute: f"{attribute.name}: {attribute.values[0]}",
)
def test_an_attribute_asks_for_colours_by_its_name_or_its_values(attribute):
    assert asks_for_colour(attribute)
    assert colour_attribute(Taxonomy((KIND, attribute))) == attribute.name


def test_a_colour_among_other_values_asks_for_none():
    assert not asks_for_colour(KIND)
    assert not asks_for_colour(Attribute("discoloured", ("yes", "no")))
    assert colour_attribute(Taxonomy((KIND,))) == ""


def test_other_colours_in_the_same_picture():
    picture = Image.new("RGB", (4, 4), (200, 40, 40))
    random = np.random.default_rng(0)
    found = {jittered(picture, 0.4, random).getpixel((0, 0)) for _ in range(8)}
    assert len(found) == 8
    assert jittered(picture, 0.4, random).size == (4, 4)
    same = jittered(picture, 0.0, random).getpixel((0, 0))
    assert all(abs(a - b) <= 2 for a, b in zip(same, (200, 40, 40), strict=True))


def test_the_augmenter_leaves_colours_alone_where_they_are_asked_for():
    section = AugmentSection(flip=0, crop=0, colour=0.4)
    picture, random = Image.new("RGB", (4, 4), (200, 40, 40)), np.random.default_rng(0)
    plain = Augmenter(section, Taxonomy((KIND,)))
    asked = Augmenter(section, Taxonomy((KIND, Attribute("colour", ("red", "blue")))))
    assert plain.photo(picture, random)[0].getpixel((0, 0)) != (200, 40, 40)
    assert asked.photo(picture, random)[0].getpixel((0, 0)) == (200, 40, 40)
