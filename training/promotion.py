"""Whether a checkpoint has earned its place: its fused head against its own text-only and photo-only heads.

The rule: nowhere may the fused head's macro-F1 fall below that of a part by more than chance explains, on no
attribute and not on the mean over the attributes: products as they are and with masked titles against both parts,
without photos against the text alone, without text against the photos alone. More than chance: the whole interval
of the paired difference lies below zero (`training.bootstrap`, all intervals taken together). A fusion that equals
its part is let through, since a part that is always right cannot be beaten; what it loses by chance is told.

Simulated on seven attributes of two to 141 values, with groups and rare values as they are in the fashion data: of
fusions exactly as good as their parts, which answer apart from them, at most 1 % are refused with 80, 300 or 1000 rows
(by the bootstrap alone 7 to 8 %). Of fusions that lose 1, 2 or 3 points of macro-F1 on colours of 46 values, 3,300 rows
and answers that agree on 95 % of them, 2, 5 and 17 % are: what is let through is not proven good.

It is measured on the test part. Nothing was trained, chosen or calibrated on it, and the verdict changes nothing of
the checkpoint; the validation part chose the epoch by the fused head, so it flatters that head. Who fits again and
again until the verdict is kind wears the test part out: keep a table apart, and use `compare` on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.calibration import AttributeCalibration, Calibration, Pattern
from models.taxonomy import Attribute, Taxonomy
from training.answers import answered, owners, values_of, wanted
from training.bootstrap import (
    FEWEST_GROUPS,
    RESAMPLES,
    Difference,
    Resamples,
    count,
    differences,
    mean,
    resamples,
)
from training.conditions import IN_WORDS, Condition
from training.evaluation import Logits
from training.scope import within_scope
from training.table import Row

Part = Literal["text_only", "photo_only"]
PARTS: dict[Condition, tuple[Part, ...]] = {
    "as_is": ("text_only", "photo_only"),
    "masked_titles": ("text_only", "photo_only"),
    "without_photos": ("text_only",),
    "without_text": ("photo_only",),
}
# Logits.patterns of a row that lacks the part's modality.
LACKING: dict[Part, tuple[str | None, ...]] = {"text_only": ("photos", None), "photo_only": ("text", None)}
# A loss that shows in figures of two digits is told even where chance explains it.
NOTED = 0.005
ALONE: dict[Part, Pattern] = {"text_only": "text", "photo_only": "photos"}  # of products that have only that
PART_IN_WORDS: dict[Part, str] = {"text_only": "the text alone", "photo_only": "the photos alone"}


@dataclass(frozen=True)
class Beside:
    """The fused head (B of the difference) beside one of its parts (A), in macro-F1."""

    condition: Condition
    part: Part
    attribute: str
    difference: Difference

    def sentence(self, together: int) -> str:
        low, high = self.difference.interval(together)
        return (
            f"{self.attribute} {IN_WORDS[self.condition]}: fused macro-F1 {self.difference.b:.3f} is below "
            f"{self.difference.a:.3f} of {PART_IN_WORDS[self.part]} ({self.difference.value:+.3f}, interval "
            f"{low:+.3f} to {high:+.3f})"
        )


def promotion(
    measured: Mapping[Condition, Logits],
    rows: Sequence[Row],
    taxonomy: Taxonomy,
    calibration: Calibration,
    seed: int = 0,
) -> dict[str, Any]:
    """`promotable` of metrics.json: the verdict and the sentences it rests on. `rows` in the order of the logits."""
    rows, _ = within_scope(rows, taxonomy.scopes)
    owner, groups = owners(rows)
    labelled = {row.group for row in rows if any(row.values.get(attribute.name) for attribute in taxonomy)}
    if len(labelled) < FEWEST_GROUPS:
        few = f"{len(labelled)} groups of labelled products are too few to tell: it takes {FEWEST_GROUPS} at least"
        return {"verdict": False, "because": [few]}
    resampled = resamples(groups, RESAMPLES, seed)
    found = [
        beside
        for index, attribute in enumerate(taxonomy)
        for beside in of_attribute(
            attribute, calibration.attributes[index], index, measured, rows, owner, resampled
        )
    ]
    found += means(found)
    below = [beside for beside in found if beside.difference.interval(len(found))[1] < 0]
    if below:
        return {"verdict": False, "because": [beside.sentence(len(found)) for beside in below]}
    kept = f"on {len(rows)} products the fused head is nowhere below its parts by more than chance explains"
    noted = [
        f"by chance {beside.sentence(len(found))}" for beside in found if beside.difference.value <= -NOTED
    ]
    judged = {beside.attribute for beside in found}
    unknown = [attribute.name for attribute in taxonomy if attribute.name not in judged]
    if unknown:
        noted.append(f"not judged, as no product of the test part shows them: {', '.join(unknown)}")
    return {"verdict": True, "because": [kept, *noted]}


def of_attribute(
    attribute: Attribute,
    calibration: AttributeCalibration,
    index: int,
    measured: Mapping[Condition, Logits],
    rows: Sequence[Row],
    owner: NDArray[np.int64],
    resampled: Resamples,
) -> Iterator[Beside]:
    """Each part is judged on the labelled rows where its modality is there, and the fused head on the same."""
    values = values_of(rows, [attribute])
    true = wanted(rows, attribute, values)
    for condition, logits in measured.items():
        fused = answered(logits.fused[index], logits.served, attribute, calibration, values)
        for part in PARTS[condition]:
            there = np.array([pattern not in LACKING[part] for pattern in logits.patterns]) & true.any(axis=1)
            if there.any():
                own = [ALONE[part]] * len(logits.patterns)
                alone = answered(getattr(logits, part)[index], own, attribute, calibration, values)
                part_counts, fused_counts = (
                    count(true[there], table[there], owner[there], resampled.groups)
                    for table in (alone, fused)
                )
                difference = differences(part_counts, fused_counts, resampled)["macro_f1"]
                yield Beside(condition, part, attribute.name, difference)


def means(found: Sequence[Beside]) -> list[Beside]:
    """The mean over the attributes for each condition and part: many small losses are one that shows."""
    together: dict[tuple[Condition, Part], list[Difference]] = {}
    for beside in found:
        together.setdefault((beside.condition, beside.part), []).append(beside.difference)
    return [Beside(*key, "the mean over the attributes", mean(those)) for key, those in together.items()]


def in_words(promotable: Mapping[str, Any]) -> str:
    """The verdict in words: on the terminal and in the model card."""
    heading = "Promotable" if promotable["verdict"] else "NOT promotable"
    return f"{heading}: {'; '.join(promotable['because'])}."
