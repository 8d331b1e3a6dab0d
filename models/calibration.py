"""From logits to confidences that can be believed, and from confidences to decisions.

For each attribute and each pattern of what is present, because a model that misses the photos is wrong more
often than it thinks: a temperature (Guo et al. 2017), a beta map of the offered confidence (Kull et al. 2017)
for what a single temperature cannot bend, and a threshold for `auto` that keeps a promised precision. A text that is
silent about an attribute is missed as well: there the numbers are those of photos alone. For a product as a whole,
whether it is like those that these numbers were found on: of others they say nothing. It knows how to apply the
numbers of `calibration.json`; `training/calibrate.py` knows how to find them.

Legend: B products, V values of an attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import CheckpointError
from models.product import Decision
from models.scope import in_scope
from models.taxonomy import Taxonomy

Pattern = Literal["both", "text", "photos"]
PATTERNS: tuple[Pattern, ...] = ("both", "text", "photos")
BOTH, TEXT, PHOTOS = range(len(PATTERNS))
PATTERN_IN_WORDS: dict[Pattern, str] = {
    "both": "text and photos",
    "text": "text alone",
    "photos": "photos alone",
}
Modality = Literal["text", "photos"]
MODALITIES: tuple[Modality, ...] = ("text", "photos")
# The beta map that changes nothing.
IDENTITY = (1.0, 1.0, 0.0)
# The log of a probability as small as float32 holds: where every other value is impossible, its doubt.
LEAST = -87.0
# Under this confidence the value is more likely wrong than right: offering it would cost a reviewer more
# than it saves.
ABSTAIN_BELOW = 0.5
# How many times the allowed share of errors a single `auto` value may be in doubt: at a target of 0.95 none is under
# 0.8. A promise is about all of them together, and the sure ones could otherwise pay for a product of another trade.
MOST_DOUBT = 4


@dataclass(frozen=True)
class AttributeCalibration:
    """`temperature` and `beta` of the fused head by pattern; temperatures of the evidence heads.

    `auto_from` by pattern: the confidence from which a value needs no person, None where no confidence
    keeps the promise of `target_precision`. `beta` by pattern: a, b of at least 0 and c, which map a
    probability p to the sigmoid of a ln p - b ln(1 - p) + c.
    """

    target_precision: float
    temperature: dict[Pattern, float]
    auto_from: dict[Pattern, float | None]
    text_only: float = 1.0
    photo_only: float = 1.0
    beta: dict[Pattern, list[float]] = field(
        default_factory=lambda: {pattern: list(IDENTITY) for pattern in PATTERNS}
    )

    def __post_init__(self) -> None:
        for by_pattern in (self.temperature, self.auto_from, self.beta):
            if missing := [pattern for pattern in PATTERNS if pattern not in by_pattern]:
                raise ValueError(f"no numbers for {PATTERN_IN_WORDS[missing[0]]} ({missing[0]!r})")

    def confidences(self, logits: Tensor, of: list[Pattern], multiple: bool) -> Tensor:
        """Logits of the fused head (B, V) of products of these patterns to confidences (B, V), on the CPU.

        Each of several values is mapped by itself. Of a single choice the map moves the offered value and
        the others share what it leaves, so that they still sum to one; the offered value stays first.
        """
        return self.confidences_at(logits, indices_of(of), multiple)

    def confidences_at(self, logits: Tensor, of: Tensor, multiple: bool) -> Tensor:
        """The same, with int64 (B,), the index of each pattern in PATTERNS."""
        temperature = torch.tensor([self.temperature[pattern] for pattern in PATTERNS])[of].unsqueeze(1)
        a, b, c = torch.tensor([self.beta[pattern] for pattern in PATTERNS])[of].unsqueeze(2).unbind(1)
        scaled = logits / temperature
        belief, doubt = log_odds(scaled, multiple)
        mapped = (a * belief - b * doubt + c).sigmoid()
        if multiple:
            return mapped
        others = scaled.log_softmax(dim=1)
        first = others.argmax(dim=1, keepdim=True)
        others = others.scatter(1, first, float("-inf")) - doubt  # logs of shares, (B, V)
        # At this confidence the second value would have as much; a hair above it rounding cannot swap them.
        least = (others.amax(dim=1, keepdim=True) + 1e-3).sigmoid()
        offered = torch.maximum(mapped, least)
        return ((1 - offered) * others.exp()).scatter(1, first, offered)

    def patterns_for(self, of: list[Pattern], text_only: Tensor, multiple: bool) -> list[Pattern]:
        """The pattern of each product as far as this attribute goes, by logits (B, V) of the text's own head.

        A text that offers no value by itself is silent about a choice, and beside photos it is as if it were not there.
        """
        return names_of(self.patterns_at(indices_of(of), text_only, multiple))

    def patterns_at(self, of: Tensor, text_only: Tensor, multiple: bool) -> Tensor:
        """The same by indices, int64 (B,)."""
        if multiple:
            return of
        silent = probabilities(text_only, self.text_only, multiple).amax(dim=1) < ABSTAIN_BELOW
        return torch.where((of == BOTH) & silent, PHOTOS, of)

    def decide(self, confidence: float, pattern: Pattern, vouched: bool = True) -> Decision:
        """`auto` from the threshold on, which is never under `least_auto`, for a value that is `vouched` for."""
        threshold = self.auto_from[pattern]
        if not confidence >= ABSTAIN_BELOW:  # nor NaN
            return "abstain"
        if threshold is None or not vouched or confidence < max(threshold, least_auto(self.target_precision)):
            return "review"
        return "auto"


@dataclass(frozen=True)
class Calibration:
    """One AttributeCalibration for each attribute, in taxonomy order.

    `familiar_from` by modality: the familiarity from which a text or photos are like those it was calibrated on, None
    for any.
    """

    attributes: tuple[AttributeCalibration, ...]
    familiar_from: dict[Modality, float | None] = field(default_factory=lambda: dict.fromkeys(MODALITIES))

    @classmethod
    def uncalibrated(cls, taxonomy: Taxonomy, target_precision: float) -> "Calibration":
        """Temperatures of one and no promise: every value goes to a person."""
        neutral = AttributeCalibration(
            target_precision, dict.fromkeys(PATTERNS, 1.0), dict.fromkeys(PATTERNS)
        )
        return cls(tuple(neutral for _ in taxonomy))

    def vouched_at(
        self, text_only: Sequence[Tensor], photo_only: Sequence[Tensor], of: Tensor, taxonomy: Taxonomy
    ) -> tuple[Tensor, ...]:
        """By logits (B, V) of either modality's own heads, and by indices int64 (B,) of the products' patterns: of each
        attribute bool (B, V), whether what is familiar vouches for a value.

        Of a product that has both one may be strange: a poor title says little, and its photo is as good as ever. But a
        text of another kind may say much that is wrong, so the familiar one has to offer the value by itself.
        """
        by_text = (self.familiar_at(text_only, "text", taxonomy) & (of != PHOTOS)).unsqueeze(1)  # (B, 1)
        by_photos = (self.familiar_at(photo_only, "photos", taxonomy) & (of != TEXT)).unsqueeze(1)
        no_stranger = (by_text & by_photos) | (of != BOTH).unsqueeze(1)
        return tuple(
            (by_text & (no_stranger | (told >= ABSTAIN_BELOW)))
            | (by_photos & (no_stranger | (shown >= ABSTAIN_BELOW)))
            for told, shown in zip(*self.alone(text_only, photo_only, taxonomy), strict=True)
        )

    def familiar_at(self, logits: Sequence[Tensor], modality: Modality, taxonomy: Taxonomy) -> Tensor:
        """bool (B,): whether texts or photos of these logits of their own heads are like those it was calibrated on."""
        limit = self.familiar_from[modality]
        return familiarity(logits, taxonomy) >= (-torch.inf if limit is None else limit)

    def alone(
        self, text_only: Sequence[Tensor], photo_only: Sequence[Tensor], taxonomy: Taxonomy
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What text and photos say of every attribute by themselves, (B, V) each: the evidence of a tag."""
        text = said(text_only, [one.text_only for one in self.attributes], taxonomy)
        return text, said(photo_only, [one.photo_only for one in self.attributes], taxonomy)

    def patterns_for(
        self, of: list[Pattern], text_only: Sequence[Tensor], taxonomy: Taxonomy
    ) -> list[list[Pattern]]:
        """For each attribute the patterns whose numbers count for products of these, from logits (B, V) of the text's
        own heads.
        """
        return [names_of(each) for each in self.patterns_at(indices_of(of), text_only, taxonomy)]

    def patterns_at(self, of: Tensor, text_only: Sequence[Tensor], taxonomy: Taxonomy) -> list[Tensor]:
        """The same by indices, int64 (B,) each."""
        heads = zip(self.attributes, text_only, taxonomy, strict=True)
        return [one.patterns_at(of, head, attribute.multiple) for one, head, attribute in heads]

    def targets(self, taxonomy: Taxonomy) -> dict[str, float]:
        """The precision that each attribute by name is to keep."""
        return {
            attribute.name: calibration.target_precision
            for attribute, calibration in zip(taxonomy, self.attributes, strict=True)
        }

    def to_dict(self, taxonomy: Taxonomy) -> dict[str, Any]:
        return {
            "familiar_from": dict(self.familiar_from),
            "attributes": {
                attribute.name: {
                    "target_precision": calibration.target_precision,
                    "temperature": dict(calibration.temperature),
                    "auto_from": dict(calibration.auto_from),
                    "text_only": calibration.text_only,
                    "photo_only": calibration.photo_only,
                    "beta": dict(calibration.beta),
                }
                for attribute, calibration in zip(taxonomy, self.attributes, strict=True)
            },
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any], taxonomy: Taxonomy) -> "Calibration":
        """Raises CheckpointError when an attribute of the taxonomy has no calibration, or none for some pattern."""
        # Checkpoints made before familiarity was known hold the attributes alone.
        familiar_from = document.get("familiar_from", dict.fromkeys(MODALITIES))
        entries = document["attributes"] if "familiar_from" in document else document
        try:
            attributes = tuple(AttributeCalibration(**entries[attribute.name]) for attribute in taxonomy)
            return cls(attributes, {modality: familiar_from[modality] for modality in MODALITIES})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"calibration.json does not fit the taxonomy: {error}") from error


def least_auto(target_precision: float) -> float:
    """The confidence under which no single value is `auto`, however sure the others are."""
    return max(ABSTAIN_BELOW, 1 - MOST_DOUBT * (1 - target_precision))


def familiarity(logits: Sequence[Tensor], taxonomy: Taxonomy) -> Tensor:
    """(B,): the mean over the single choices of the log of the summed exponentials of their logits (B, V).

    The negative energy of Liu et al. 2020: what a network has learned raises some logit of every choice, and what is
    strange to it raises none. Zeros where every attribute takes several values.
    """
    choices = [head for head, attribute in zip(logits, taxonomy, strict=True) if not attribute.multiple]
    if not choices:
        return logits[0].new_zeros(logits[0].shape[0])  # not its len(), which a trace keeps
    return torch.stack([head.logsumexp(dim=1) for head in choices]).mean(dim=0)


def said(logits: Sequence[Tensor], temperatures: Sequence[float], taxonomy: Taxonomy) -> tuple[Tensor, ...]:
    """What the heads of one modality say, in scope, (B, V) each."""
    heads = zip(logits, temperatures, taxonomy, strict=True)
    alone = [probabilities(head, temperature, attribute.multiple) for head, temperature, attribute in heads]
    return tuple(one.confidence for one in in_scope(taxonomy, alone))


def probabilities(logits: Tensor, temperature: float, multiple: bool) -> Tensor:
    """Logits (B, V) to probabilities (B, V): softmax over one choice, sigmoid for each of several."""
    scaled = logits / temperature
    return scaled.sigmoid() if multiple else scaled.softmax(dim=-1)


def log_odds(scaled: Tensor, multiple: bool) -> tuple[Tensor, Tensor]:
    """ln p and ln(1 - p) of what is offered: (B, 1) of the most probable value of one choice, (B, V) of each
    of several.
    """
    if multiple:
        return functional.logsigmoid(scaled), functional.logsigmoid(-scaled)
    belief, first = scaled.log_softmax(dim=1).max(dim=1, keepdim=True)
    # Not log(1 - p): rounding makes that minus infinity long before the others are impossible.
    doubt = scaled.log_softmax(dim=1).scatter(1, first, float("-inf")).logsumexp(dim=1, keepdim=True)
    return belief, doubt.clamp(min=LEAST)


def patterns(has_text: Tensor, has_photos: Tensor) -> list[Pattern]:
    """The pattern of each product; one with neither counts as text, the more cautious of the two."""
    return names_of(indices(has_text, has_photos))


def indices(has_text: Tensor, has_photos: Tensor) -> Tensor:
    """The same as int64 (B,), indices of PATTERNS."""
    return torch.where(has_photos, torch.where(has_text, BOTH, PHOTOS), TEXT)


def indices_of(names: Sequence[Pattern]) -> Tensor:
    """int64 (B,)."""
    return torch.tensor([PATTERNS.index(name) for name in names], dtype=torch.int64)


def names_of(found: Tensor) -> list[Pattern]:
    return [PATTERNS[index] for index in found.tolist()]
