"""Changes the colours of photos in training, which is only right where no attribute asks for them."""

import re

import numpy as np
from PIL import Image, ImageColor
from torchvision.transforms.v2 import functional

from models.taxonomy import Attribute, Taxonomy

NAMES = frozenset({"colour", "colours", "color", "colors", "shade", "hue"})
HUE = 0.2  # of the strength: a whole turn of the hue is 1, and a tenth of it makes red orange


def colour_attribute(taxonomy: Taxonomy) -> str:
    """The first attribute that asks for a colour, or an empty string.

    It does when its name says so (one of NAMES, or 色) or when more than half of its values hold the CSS name of a
    colour or end in 色.
    """
    return next((attribute.name for attribute in taxonomy if asks_for_colour(attribute)), "")


def asks_for_colour(attribute: Attribute) -> bool:
    if "色" in attribute.name or NAMES & words(attribute.name):
        return True
    colours = [
        value.endswith("色") or bool(words(value) & ImageColor.colormap.keys()) for value in attribute.values
    ]
    return sum(colours) > len(colours) / 2


def words(text: str) -> set[str]:
    """In lower case; `baseColour` and `base_colour` are two."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}


def jittered(picture: Image.Image, strength: float, random: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation times 1 ± `strength`, the hue turned by up to a fifth of it."""
    brightness, contrast, saturation = (
        float(factor) for factor in 1 + random.uniform(-strength, strength, 3)
    )
    picture = functional.adjust_brightness(picture, brightness)
    picture = functional.adjust_contrast(picture, contrast)
    picture = functional.adjust_saturation(picture, saturation)
    return functional.adjust_hue(picture, float(random.uniform(-HUE, HUE)) * strength)
