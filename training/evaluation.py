"""What a model is worth on rows: accuracy, macro-F1, calibration error and the coverage that a precision
target leaves.

Legend: N rows, V values of an attribute.
"""

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.calibration import (
    ABSTAIN_BELOW,
    AttributeCalibration,
    Calibration,
    Pattern,
    indices_of,
    patterns,
)
from models.checkpoint import Checkpoint, version
from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.scope import InScope, in_scope
from models.taxonomy import Attribute, Taxonomy
from training.answers import several_answered
from training.applicable import Known, known, told
from training.conditions import Condition, shown
from training.data import MISSING, Collator, Labelled, Products, targets_of
from training.device import device_of
from training.table import Row

Shown = TypeVar("Shown", Pattern, Pattern | None)
ECE_BINS = 15
BATCH = 128


@dataclass(frozen=True)
class Logits:
    """float32 (N, V) of each attribute by head, and the pattern of each row; None where nothing was left to see, as of
    a product without text that is shown without its photos. Such a row tells nothing of any pattern.
    """

    fused: tuple[Tensor, ...]
    text_only: tuple[Tensor, ...]
    photo_only: tuple[Tensor, ...]
    patterns: list[Pattern | None]

    @property
    def served(self) -> list[Pattern]:
        """The patterns as a tagger takes them, see `models.calibration.patterns`."""
        return [pattern or "text" for pattern in self.patterns]

    @property
    def seen(self) -> Tensor:
        """bool (N,): the rows of which there was something to see."""
        return torch.tensor([pattern is not None for pattern in self.patterns], dtype=torch.bool)


def evaluate_rows(
    model: FusionTagger,
    rows: Sequence[Row],
    preprocessor: Preprocessor,
    workers: int,
    *,
    quiet: bool = True,
) -> Logits:
    """Runs the model over rows as they are; `training.conditions.shown` makes them poorer.

    It is moved to the device that it is measured on, and stays there.
    """
    # Before any inference mode: a buffer that is moved inside of one could not be learned or loaded again.
    model.eval().to(device_of(model))
    # Measuring must not shift the random numbers of a training that goes on afterwards.
    generator = torch.Generator()
    loader = DataLoader(
        Products(rows, preprocessor),
        batch_size=BATCH,
        collate_fn=Collator(()),
        num_workers=workers,
        generator=generator,
    )
    return answered(model, tqdm(loader, desc="evaluating", disable=quiet, file=sys.stderr))


@torch.inference_mode()
def answered(model: FusionTagger, batches: Iterable[Labelled]) -> Logits:
    """On the device that the model is on; the logits come back from it."""
    heads: dict[str, list[tuple[Tensor, ...]]] = {"fused": [], "text_only": [], "photo_only": []}
    of: list[Pattern | None] = []
    for labelled in batches:
        output = model(labelled.batch.to(model.absent_text.device))
        for name, answers in heads.items():
            answers.append(tuple(logits.float().cpu() for logits in getattr(output, name)))
        seen = (output.has_text | output.has_photos).tolist()
        found = patterns(output.has_text, output.has_photos)
        of.extend(pattern if anything else None for pattern, anything in zip(found, seen, strict=True))
    whole = {
        name: tuple(torch.cat(column) for column in zip(*answers, strict=True))
        for name, answers in heads.items()
    }
    return Logits(patterns=of, **whole)


def summary(logits: Logits, targets: tuple[Tensor, ...], taxonomy: Taxonomy) -> dict[str, float]:
    """The validation figures that early stopping watches: means over the attributes of the fused head."""
    scores, losses = [], []
    for index, attribute in enumerate(taxonomy):
        rows = labelled(targets[index], attribute)
        if rows.any():
            scores.append(score(attribute, logits.fused[index][rows], targets[index][rows]))
            losses.append(mean_loss(attribute, logits.fused[index][rows], targets[index][rows]))
    figures = {name: float(np.mean([s[name] for s in scores])) for name in ("accuracy", "macro_f1")}
    return {**figures, "loss": float(np.mean(losses))}


def report(
    logits: Logits, targets: tuple[Tensor, ...], taxonomy: Taxonomy, calibration: Calibration
) -> dict[str, dict[str, Any]]:
    """The `attributes` of `evaluate --json`: an entry for each attribute that has a label in these rows, of which those
    count that there is something to see of.
    """
    entries = {}
    scoped, truth = said(logits, taxonomy, calibration), known(targets, taxonomy)
    of = calibration.patterns_for(logits.served, logits.text_only, taxonomy)
    vouched = vouched_in(logits, taxonomy, calibration)
    for index, attribute in enumerate(taxonomy):
        if (labelled(targets[index], attribute) & logits.seen).any():
            entries[attribute.name] = entry(
                attribute,
                calibration.attributes[index],
                index,
                logits,
                targets[index],
                scoped[index],
                truth[index],
                of[index],
                vouched[index],
            )
    return entries


def said(logits: Logits, taxonomy: Taxonomy, calibration: Calibration) -> tuple[InScope, ...]:
    """What a tagger says of rows with these logits."""
    of = calibration.patterns_for(logits.served, logits.text_only, taxonomy)
    heads = zip(calibration.attributes, logits.fused, of, taxonomy, strict=True)
    return in_scope(
        taxonomy, [one.confidences(head, each, attribute.multiple) for one, head, each, attribute in heads]
    )


def vouched_in(logits: Logits, taxonomy: Taxonomy, calibration: Calibration) -> tuple[Tensor, ...]:
    """bool (N, V) of each attribute."""
    return calibration.vouched_at(logits.text_only, logits.photo_only, indices_of(logits.served), taxonomy)


def entry(
    attribute: Attribute,
    calibration: AttributeCalibration,
    index: int,
    logits: Logits,
    target: Tensor,
    scoped: InScope,
    truth: Known,
    of: list[Pattern],
    vouched: Tensor,
) -> dict[str, Any]:
    """The heads are judged by the rows with a label, offers as a buyer meets them (see `judged`); `of` are the patterns
    as far as this attribute goes. Of several values the fused figures are those of what is offered: nearly all the
    probabilities of a row are near 0 and right, and would hide how far those that anybody sees can be trusted.
    """
    rows = labelled(target, attribute) & logits.seen
    met = judged(attribute, target, scoped, truth) & logits.seen
    present, labels = those(logits.patterns, rows), target[rows]
    confidence, right = offers(scoped.confidence[met], target[met], attribute)
    each = confidence.shape[1]
    by = [pattern for pattern in those(of, met) for _ in range(each)]
    sure = at_offers(vouched[met], scoped.confidence[met], attribute).flatten().tolist()
    confidence, right = confidence.flatten(), right.flatten()
    decisions = [calibration.decide(*one) for one in zip(confidence.tolist(), by, sure, strict=True)]
    auto = torch.tensor([decision == "auto" for decision in decisions], dtype=torch.bool)
    considered, fused = int((rows | met).sum()), score(attribute, logits.fused[index][rows], labels)
    precision = float(right[auto].float().mean()) if auto.any() else None
    if attribute.multiple:
        tagged = scoped.offered.unsqueeze(1) & (scoped.confidence >= ABSTAIN_BELOW)
        fused = several_score(tagged[rows], labels > 0.5)
        offered = confidence >= ABSTAIN_BELOW
        confidence, right, considered = confidence[offered], right[offered], int(offered.sum())
    part = functools.partial(score_of_part, attribute, calibration)
    applicable = {} if attribute.applies_when is None else {"applicable": told(scoped, truth, logits.seen)}
    return {
        "rows": int(rows.sum()),
        "fused": {**fused, "ece": ece(confidence, right)},
        "text_only": part(*having(present, "photos", logits.text_only[index][rows], labels), "text"),
        "photo_only": part(*having(present, "text", logits.photo_only[index][rows], labels), "photos"),
        "auto": {
            "target_precision": calibration.target_precision,
            "precision": precision,
            "coverage": float(auto.sum()) / considered if considered else 0.0,
        },
        **applicable,
    }


def those(of: list[Shown], rows: Tensor) -> list[Shown]:
    return [pattern for pattern, wanted in zip(of, rows.tolist(), strict=True) if wanted]


def judged(attribute: Attribute, target: Tensor, scoped: InScope, truth: Known) -> Tensor:
    """bool (N,): the rows whose offers can be judged. Where the attribute is known not to apply there is no label,
    and any offer is wrong.
    """
    return scoped.offered & (labelled(target, attribute) | truth.outside)


def having(
    of: list[Pattern | None], lacking: Pattern, logits: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows that do not show the pattern `lacking`: a head is only judged where its modality is there."""
    rows = torch.tensor([pattern != lacking for pattern in of], dtype=torch.bool)
    return logits[rows], target[rows]


def labelled(target: Tensor, attribute: Attribute) -> Tensor:
    """bool (N,): the rows that carry a label."""
    return ~target.isnan().any(dim=1) if attribute.multiple else target != MISSING


def offers(probability: Tensor, target: Tensor, attribute: Attribute) -> tuple[Tensor, Tensor]:
    """Confidence and whether it was right, (N, 1) for one value of each row, (N, V) for several."""
    if attribute.multiple:
        return probability, target > 0.5
    confidence, value = probability.max(dim=1, keepdim=True)
    return confidence, value == target.unsqueeze(1)


def at_offers(known: Tensor, probability: Tensor, attribute: Attribute) -> Tensor:
    """What is known of every value, (N, V), of those that `offers` gives."""
    return known if attribute.multiple else known.gather(1, probability.argmax(dim=1, keepdim=True))


def score(attribute: Attribute, logits: Tensor, target: Tensor) -> dict[str, float | None]:
    """Accuracy (exact match where several values are right) and macro-F1 over the values that occur; None
    without rows.

    A value that the taxonomy does not hold occurs like any other, and every answer to it is wrong.
    """
    if not len(target):
        return {"accuracy": None, "macro_f1": None}
    if attribute.multiple:
        return several_score(logits > 0, target > 0.5)
    found, wanted = logits.argmax(dim=1).numpy(), target.numpy()
    f1 = f1_score(wanted, found, labels=np.unique(wanted), average="macro", zero_division=0)
    return {"accuracy": float((found == wanted).mean()), "macro_f1": float(f1)}


def score_of_part(
    attribute: Attribute, calibration: AttributeCalibration, logits: Tensor, target: Tensor, alone: Pattern
) -> dict[str, float | None]:
    """The same of a head that sees one modality, by what would be offered of products that have that one alone."""
    if attribute.multiple:
        return several_score(several_answered(logits, [alone] * len(logits), calibration), target > 0.5)
    return score(attribute, logits, target)


def several_score(offered: Tensor, true: Tensor) -> dict[str, float | None]:
    """The same of values that are offered and those that are true, bool (N, V)."""
    if not len(true):
        return {"accuracy": None, "macro_f1": None}
    found, wanted = offered.numpy(), true.numpy()
    occurring = wanted.any(axis=0)
    accuracy = float((found == wanted).all(axis=1).mean())
    # Not scikit-learn's: of a single column it takes the mean with the F1 of not having the value.
    hits, both = (found & wanted).sum(axis=0), found.sum(axis=0) + wanted.sum(axis=0)
    f1 = float((2 * hits[occurring] / both[occurring]).mean()) if occurring.any() else 0.0
    return {"accuracy": accuracy, "macro_f1": f1}


def mean_loss(attribute: Attribute, logits: Tensor, target: Tensor) -> float:
    """Over the rows whose value the taxonomy holds."""
    if attribute.multiple:
        return functional.binary_cross_entropy_with_logits(logits, target).item()
    known = target >= 0
    return functional.cross_entropy(logits[known], target[known]).item() if known.any() else 0.0


def ece(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error with ECE_BINS equal-width bins (Naeini et al. 2015); 0 without any."""
    if not len(confidence):
        return 0.0
    bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
    gaps = [
        (confidence[bins == b].mean() - right[bins == b].float().mean()).abs() * (bins == b).float().mean()
        for b in bins.unique()
    ]
    return float(torch.stack(gaps).sum())


def evaluate(
    checkpoint: Checkpoint,
    path: Path,
    rows: Sequence[Row],
    workers: int,
    condition: Condition = "as_is",
    wordings: Iterable[str] = (),
) -> dict[str, Any]:
    """The document of `evaluate --json` for the checkpoint at `path`; it names a condition other than as_is.

    `wordings` tell values beside those of the taxonomy, for `masked_titles`.
    """
    seen = shown(rows, condition, checkpoint.taxonomy, wordings)
    logits = evaluate_rows(checkpoint.model, seen, checkpoint.preprocessor, workers, quiet=False)
    targets = targets_of(rows, checkpoint.taxonomy)
    entries = report(logits, targets, checkpoint.taxonomy, checkpoint.calibration)
    return document(path, rows, condition, entries)


def document(
    path: Path, rows: Sequence[Row], condition: Condition, entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    return {
        "checkpoint": str(path),
        "version": version(path),
        "rows": len(rows),
        **({} if condition == "as_is" else {"condition": condition}),
        "attributes": entries,
    }
