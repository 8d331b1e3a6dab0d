"""Makes the training products harder than the catalogue: worse titles, missing parts, moved photos.

Tidy catalogues teach a model to trust the title whenever there is one; with the telling words masked out of
some titles the gates learn to look. Every choice comes from the generator passed in, so a run can be
repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models.taxonomy import Taxonomy
from training.colour import colour_attribute, jittered
from training.recipe import AugmentSection
from training.synonyms import ENGLISH, Thesaurus
from training.telling import telling_words, without

DROPPED_WORDS = 0.3  # of the words of a title whose words are dropped: most of its sense survives
Box = tuple[float, float, float, float]
# (title, description, the product's values by attribute, generator) → those to train on, maybe in another language
Rewrite = Callable[[str, str, Mapping[str, Sequence[str]], np.random.Generator], tuple[str, str]]


class Augmenter:
    """Applies the shares of a recipe's `[augment]` section."""

    def __init__(self, section: AugmentSection, taxonomy: Taxonomy, rewrite: Rewrite | None = None) -> None:
        self.section = section
        self.rewrite = rewrite
        self.telling = telling_words(taxonomy)
        self.thesaurus = Thesaurus(Path(section.thesaurus) if section.thesaurus else ENGLISH)
        # With the colours changed, the photo of a red shirt would teach that it is a pink one.
        self.colour = 0.0 if colour_attribute(taxonomy) else section.colour

    def texts(
        self, title: str, description: str, values: Mapping[str, Sequence[str]], random: np.random.Generator
    ) -> tuple[str, str]:
        """Both of a product, poorer in the same ways: telling words that are left in one of them tell all the same."""
        rewritten = title
        if self.rewrite is not None and title:
            rewritten, description = self.rewrite(title, description, values, random)
        section = self.section
        reword, mask, drop = random.random(3) < (section.synonyms, section.mask_values, section.drop_words)

        def poorer(text: str) -> str:
            if reword:
                text = self.thesaurus.reworded(text, random)
            if mask:
                return without(text, self.telling)
            if drop:
                return " ".join(word for word in text.split() if random.random() >= DROPPED_WORDS)
            return text

        return poorer(title) if rewritten == title else rewritten, poorer(description)

    def dropped(self, has_both: bool, random: np.random.Generator) -> tuple[bool, bool]:
        """Whether to hide (the text, the photos); never both, and only where both are there."""
        draw = random.random()
        text = draw < self.section.drop_text
        photos = self.section.drop_text <= draw < self.section.drop_text + self.section.drop_photos
        return has_both and text, has_both and photos

    def photo(self, picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, Box]:
        """The picture, maybe mirrored and in other colours, and the box of it to keep."""
        if random.random() < self.section.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.colour:
            picture = jittered(picture, self.colour, random)
        left, top, right, bottom = random.uniform(0, self.section.crop / 2, 4)
        width, height = picture.size
        return picture, (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
