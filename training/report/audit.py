"""What the data is like: how full and how repetitive it is, and which labels are probably wrong.

Labels are doubted by confident learning (Northcutt et al. 2021, through cleanlab) on the checkpoint's calibrated
confidences. These must be out of sample: on rows that trained the checkpoint it would only confirm what it
learned by heart.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_label_issues as find_multilabel_issues
from torch import Tensor

from models.taxonomy import Attribute
from training.evaluation import labelled
from training.report.measured import Measured
from training.table import Row

SUSPICIOUS = 5  # shown for each attribute
RARE = 5  # a value in fewer rows is hardly measured


@dataclass(frozen=True)
class Suspicion:
    """A row whose given values the checkpoint strongly doubts, and what it would suggest."""

    row: Row
    given: tuple[str, ...]
    suggested: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class Labels:
    """Of one attribute: `counts` of the values that occur, most frequent first; `unknown` ones the taxonomy lacks.

    `disagreeing` of `groups` that hold several labelled rows carry different values.
    """

    attribute: Attribute
    labelled: int
    missing: int
    counts: tuple[tuple[str, int], ...]
    rare: int
    unknown: tuple[str, ...]
    groups: int
    disagreeing: int
    suspicious: int
    shown: tuple[Suspicion, ...]


@dataclass(frozen=True)
class Catalogue:
    """`repeated` rows share their group with another row; `largest` is the size of the largest group."""

    rows: int
    both: int
    text: int
    photos: int
    several_photos: int
    groups: int
    repeated: int
    largest: int


def catalogue_of(rows: Sequence[Row]) -> Catalogue:
    texts = [bool(row.title or row.description) for row in rows]
    sizes = Counter(row.group for row in rows)
    return Catalogue(
        rows=len(rows),
        both=sum(has_text and bool(row.photos) for row, has_text in zip(rows, texts, strict=True)),
        text=sum(has_text and not row.photos for row, has_text in zip(rows, texts, strict=True)),
        photos=texts.count(False),
        several_photos=sum(len(row.photos) > 1 for row in rows),
        groups=len(sizes),
        repeated=sum(size for size in sizes.values() if size > 1),
        largest=max(sizes.values()),
    )


def labels_of(measured: Measured, index: int) -> Labels:
    attribute = measured.checkpoint.taxonomy.attributes[index]
    name = attribute.name
    counts = Counter(value for row in measured.rows for value in row.values.get(name, ()))
    filled = sum(bool(row.values.get(name)) for row in measured.rows)
    together: dict[str, list[frozenset[str]]] = {}
    for row in measured.rows:
        if row.values.get(name):
            together.setdefault(row.group, []).append(frozenset(row.values[name]))
    several = [values for values in together.values() if len(values) > 1]
    suspicious = suspicions(measured, index)
    known = set(attribute.values)
    return Labels(
        attribute=attribute,
        labelled=filled,
        missing=len(measured.rows) - filled,
        counts=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        rare=sum(count < RARE for count in counts.values()),
        unknown=tuple(sorted(value for value in counts if value not in known)),
        groups=len(several),
        disagreeing=sum(len(set(values)) > 1 for values in several),
        suspicious=len(suspicious),
        shown=tuple(suspicions_shown(suspicious)),
    )


def suspicions_shown(suspicious: Sequence[Suspicion]) -> list[Suspicion]:
    """The most suspicious, one of each group: a mistake that was copied is seen once."""
    first: dict[str, Suspicion] = {}
    for suspicion in suspicious:
        first.setdefault(suspicion.row.group, suspicion)
    return list(first.values())[:SUSPICIOUS]


def suspicions(measured: Measured, index: int) -> list[Suspicion]:
    """The rows whose labels cleanlab doubts, the most suspicious first."""
    attribute = measured.checkpoint.taxonomy.attributes[index]
    target = measured.targets[index]
    # What the taxonomy lacks is no label noise: the checkpoint has no word for it.
    keep = labelled(target, attribute) & (
        torch.ones(len(target), dtype=torch.bool) if attribute.multiple else target >= 0
    )
    rows = [row for row, wanted in zip(measured.rows, keep.tolist(), strict=True) if wanted]
    probability = measured.confidences(index)[keep]
    found = doubted(attribute, target[keep], probability)
    return [suspicion(attribute, rows[n], probability[n]) for n in found]


def doubted(attribute: Attribute, target: Tensor, probability: Tensor) -> list[int]:
    """Positions, the most suspicious first; none where only one value occurs: nothing to mistake it for."""
    given = [row.nonzero().flatten().tolist() for row in target] if attribute.multiple else target.tolist()
    occurring = {value for row in given for value in row} if attribute.multiple else set(given)
    if len(occurring) < 2:
        return []
    if attribute.multiple:
        # A value that every row has can be mistaken for nothing, and cleanlab refuses it, and one value by itself.
        varying = [value for value in range(target.shape[1]) if not bool((target[:, value] > 0.5).all())]
        target, probability = target[:, varying], probability[:, varying]
        given = [row.nonzero().flatten().tolist() for row in target]
        if len(varying) < 2 or not any(given):
            return []
    find = find_multilabel_issues if attribute.multiple else find_label_issues
    labels = given if attribute.multiple else np.array(given)
    with warnings.catch_warnings():
        # It warns of every value without rows; the report says that rare values hide their mistakes.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        found = find(
            labels, probability.double().numpy(), return_indices_ranked_by="self_confidence", n_jobs=1
        )
    return [int(n) for n in found]


def suspicion(attribute: Attribute, row: Row, probability: Tensor) -> Suspicion:
    given = row.values[attribute.name]
    if attribute.multiple:
        offered = [v for v, p in enumerate(probability.tolist()) if p > 0.5]
        changed = [v for v, value in enumerate(attribute.values) if (v in offered) != (value in given)]
        surest = [p if v in offered else 1 - p for v, p in enumerate(probability.tolist()) if v in changed]
        return Suspicion(row, given, tuple(attribute.values[v] for v in offered), max(surest, default=0.0))
    best = int(probability.argmax())
    return Suspicion(row, given[:1], (attribute.values[best],), float(probability[best]))
