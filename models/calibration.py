"""From logits to confidences that can be believed, and from confidences to decisions.

A temperature per attribute and per pattern of what is present (Guo et al. 2017), because a model that
misses the photos is wrong more often than it thinks; and a threshold for `auto` that keeps a promised
precision. It knows how to apply the numbers of `calibration.json`; `training/calibrate.py` knows how to
find them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from models.errors import CheckpointError
from models.product import Decision
from models.taxonomy import Taxonomy

Pattern = Literal["both", "text", "photos"]
PATTERNS: tuple[Pattern, ...] = ("both", "text", "photos")
# Under this confidence the value is more likely wrong than right: offering it would cost a reviewer more
# than it saves.
ABSTAIN_BELOW = 0.5


@dataclass(frozen=True)
class AttributeCalibration:
    """`temperature` of the fused head by pattern; `text_only`, `photo_only` of the evidence heads.

    `auto_from` by pattern: the confidence from which a value needs no person, None where no confidence
    keeps the promise of `target_precision`.
    """

    target_precision: float
    temperature: dict[Pattern, float]
    auto_from: dict[Pattern, float | None]
    text_only: float = 1.0
    photo_only: float = 1.0

    def decide(self, confidence: float, pattern: Pattern) -> Decision:
        threshold = self.auto_from[pattern]
        if threshold is not None and confidence >= threshold:
            return "auto"
        return "review" if confidence >= ABSTAIN_BELOW else "abstain"


@dataclass(frozen=True)
class Calibration:
    """One AttributeCalibration for each attribute, in taxonomy order."""

    attributes: tuple[AttributeCalibration, ...]

    @classmethod
    def uncalibrated(cls, taxonomy: Taxonomy, target_precision: float) -> "Calibration":
        """Temperatures of one and no promise: every value goes to a person."""
        neutral = AttributeCalibration(
            target_precision, dict.fromkeys(PATTERNS, 1.0), dict.fromkeys(PATTERNS)
        )
        return cls(tuple(neutral for _ in taxonomy))

    def to_dict(self, taxonomy: Taxonomy) -> dict[str, Any]:
        return {
            attribute.name: {
                "target_precision": calibration.target_precision,
                "temperature": dict(calibration.temperature),
                "auto_from": dict(calibration.auto_from),
                "text_only": calibration.text_only,
                "photo_only": calibration.photo_only,
            }
            for attribute, calibration in zip(taxonomy, self.attributes, strict=True)
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any], taxonomy: Taxonomy) -> "Calibration":
        """Raises CheckpointError when an attribute of the taxonomy has no calibration."""
        try:
            return cls(tuple(AttributeCalibration(**document[attribute.name]) for attribute in taxonomy))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"calibration.json does not fit the taxonomy: {error}") from error


def probabilities(logits: Tensor, temperature: Tensor | float, multiple: bool) -> Tensor:
    """Logits (B, V) to probabilities (B, V): softmax over one choice, sigmoid for each of several."""
    scaled = logits / temperature
    return scaled.sigmoid() if multiple else scaled.softmax(dim=-1)


def patterns(has_text: Tensor, has_photos: Tensor) -> list[Pattern]:
    """The pattern of each product; one with neither counts as text, the more cautious of the two."""
    return [
        "both" if text and photos else "photos" if photos else "text"
        for text, photos in zip(has_text.tolist(), has_photos.tolist(), strict=True)
    ]


def temperatures(calibration: AttributeCalibration, of: list[Pattern]) -> Tensor:
    """(B, 1) on the CPU."""
    return torch.tensor([calibration.temperature[pattern] for pattern in of]).unsqueeze(1)
