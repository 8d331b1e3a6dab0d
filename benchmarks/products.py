"""The products of a benchmark: texts and photos of different sizes, no two alike, so that no memory answers for one.

Photos are cut from those of the samples; a number always gives the same product.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from catalog.views import Lane
from samples.client import Client, Sample, multipart, read_samples

# How many products of ten have so many photos.
PHOTOS = (0, 1, 2, 3)
OF_TEN = (1, 7, 1, 1)
MAX_SENTENCES = 8  # of a description: up to the 128 tokens that a text tower usually takes, and beyond
WIDTHS = (300, 900)  # pixels; what shops send is larger, but the worker sees only the model view of it
CUT = 0.1  # the largest share of a side that is cut off
QUALITIES = (75, 92)


@dataclass(frozen=True)
class MadeProduct:
    title: str
    description: str
    photos: tuple[bytes, ...]  # JPEG files


class ProductMaker:
    def __init__(self, samples: Sequence[Sample], pictures: Mapping[str, Image.Image]) -> None:
        """`pictures` by the `photo_name` of the samples."""
        self._samples = samples
        self._pictures = pictures
        self._sentences = [
            f"{sentence.strip()}."
            for sample in samples
            for sentence in sample.description.split(".")
            if sentence.strip()
        ]

    @classmethod
    def from_samples(cls) -> ProductMaker:
        samples = read_samples()
        return cls(
            samples, {one.photo_name: Image.open(io.BytesIO(one.photo)).convert("RGB") for one in samples}
        )

    def make(self, number: int) -> MadeProduct:
        choice = random.Random(number)
        sample = choice.choice(self._samples)
        picture = self._pictures[sample.photo_name]
        sentences = choice.choices(self._sentences, k=choice.randint(0, MAX_SENTENCES))
        photos = choice.choices(PHOTOS, OF_TEN)[0]
        return MadeProduct(
            title=f"{sample.title} {number}",
            description=" ".join(sentences),
            photos=tuple(_photo(picture, choice) for _ in range(photos)),
        )


def _photo(picture: Image.Image, choice: random.Random) -> bytes:
    """A JPEG file of a part of the picture, reduced or enlarged."""
    width, height = picture.size
    left, right = choice.uniform(0, CUT) * width, (1 - choice.uniform(0, CUT)) * width
    top, bottom = choice.uniform(0, CUT) * height, (1 - choice.uniform(0, CUT)) * height
    wide = choice.randint(*WIDTHS)
    size = (wide, round(wide * height / width))
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom)).save(
        stream, "JPEG", quality=choice.randint(*QUALITIES)
    )
    return stream.getvalue()


def post(client: Client, product: MadeProduct, lane: Lane) -> dict[str, Any]:
    """The answer to its POST. Raises ApiError."""
    content_type, body = multipart(
        {"title": product.title, "description": product.description, "lane": lane},
        [(f"{number}.jpg", photo) for number, photo in enumerate(product.photos)],
    )
    answer: dict[str, Any] = client.call("POST", "/v1/products", body, {"Content-Type": content_type})
    return answer
