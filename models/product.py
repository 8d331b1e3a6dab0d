"""What goes into a tagger and what comes out of it: plain records that know no tensor library.

`Example` is the one exception: it carries the prepared arrays of a product between the CPU that prepares and
the device that runs.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Decision = Literal["auto", "review", "abstain"]


NO_FEATURES = np.zeros((0, 0), dtype=np.float16)
NO_TEXT_FEATURES = np.zeros(0, dtype=np.float16)


@dataclass(frozen=True)
class SeenPhoto:
    """A photo that this checkpoint's photo tower has run on before, and what came out: float16 (D,), as bytes."""

    features: bytes


@dataclass(frozen=True)
class Product:
    """The seller's text and the photos, encoded (JPEG, PNG, WebP or AVIF bytes) or seen before; either of both may
    be empty.

    `text_features`: what this checkpoint's text tower made of this very text before, float16 (D,), as bytes.
    """

    title: str = ""
    description: str = ""
    photos: tuple[bytes | SeenPhoto, ...] = ()
    text_features: bytes | None = None


@dataclass(frozen=True)
class Example:
    """A product ready for the device.

    `token_ids`, `type_ids`: int64 (T,), empty when the product has no text. `photos`: uint8 (P, 3, S, S), those the
    tower has to run on; `seen`: float16 (K, D), its features of the others, in a width of any kind where K is 0.
    `seen_text`: float16 (D,), the text tower's features where it need not run, empty where it has to.
    """

    token_ids: np.ndarray
    type_ids: np.ndarray
    photos: np.ndarray
    seen: np.ndarray = field(default_factory=lambda: NO_FEATURES)
    seen_text: np.ndarray = field(default_factory=lambda: NO_TEXT_FEATURES)

    @property
    def tokens(self) -> int:
        """T: what the batcher sorts by and budgets."""
        return len(self.token_ids)


@dataclass(frozen=True)
class Evidence:
    """The same value's probability from one modality alone; None where the product lacks it."""

    text: float | None
    photos: float | None


@dataclass(frozen=True)
class Alternative:
    value: str
    confidence: float


@dataclass(frozen=True)
class Tag:
    """One value offered for one attribute; `value` is None exactly when the decision is `abstain`."""

    attribute: str
    value: str | None
    confidence: float
    decision: Decision
    evidence: Evidence
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Tagging:
    """All tags of one product and its fused embedding (D floats, unit length).

    `photo_features`: of each photo that was not seen before, in order, what makes it a SeenPhoto; `text_features`: of a
    text that was not, what a Product may bring along next time. None where there is no text, and for what is no finite
    number in float16. They are by-products: two taggings are equal without them.
    """

    tags: tuple[Tag, ...]
    embedding: tuple[float, ...]
    photo_features: tuple[bytes | None, ...] = field(default=(), compare=False)
    text_features: bytes | None = field(default=None, compare=False)
