"""Whether confidences mean what they say, and what a precision target costs in coverage.

Legend: N offers (one for each row, or one for each row and value of a multiple attribute that is offered).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from models.calibration import AttributeCalibration, Pattern
from models.taxonomy import Attribute
from training.evaluation import ECE_BINS, at_offers, ece, judged, labelled, offers, those, vouched_in
from training.report.measured import Measured
from training.seen import SHOWN
from training.table import Row

CURVE_POINTS = 80  # more than that cannot be seen in a chart of this size


@dataclass(frozen=True)
class Bin:
    """Offers of one confidence bin: mean confidence, the share that was right and its 95 % Wilson interval."""

    confidence: float
    right: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Point:
    """Of the offers from a confidence on: which share of all they are, and which share of them is right."""

    coverage: float
    precision: float
    confidence: float


@dataclass(frozen=True)
class Trust:
    """One attribute with one pattern of what is present; `auto` is where the checkpoint draws its line."""

    pattern: Pattern
    offers: int
    ece: float
    bins: tuple[Bin, ...]
    curve: tuple[Point, ...]
    auto_from: float | None
    auto: Point | None


def trust_of(measured: Measured, index: int) -> tuple[Trust, ...]:
    """One Trust for each pattern that the rows can show: no photos in the table, no trust in photos."""
    attribute = measured.checkpoint.taxonomy.attributes[index]
    calibration = measured.checkpoint.calibration.attributes[index]
    target = measured.targets[index]
    found = []
    for pattern, condition in SHOWN.items():
        of = torch.tensor([shows(row, pattern) for row in measured.rows])
        scoped = measured.offered[condition][index]
        met = judged(attribute, target, scoped, measured.truth[index]) & of
        if met.any():
            confidence, right = offers(scoped.confidence[met], target[met], attribute)
            run = measured.logits[condition]
            of_offers = those(
                calibration.patterns_for(run.served, run.text_only[index], attribute.multiple), met
            )
            by = [each for each in of_offers for _ in range(confidence.shape[1])]
            vouched = vouched_in(run, measured.checkpoint.taxonomy, measured.checkpoint.calibration)[index]
            sure = at_offers(vouched[met], scoped.confidence[met], attribute).flatten().tolist()
            # Where the attribute applies and nothing is offered, nothing is covered.
            asked = int((labelled(target, attribute) & of | met).sum())
            found.append(
                trust(confidence.flatten(), right.flatten(), by, sure, asked, attribute, calibration, pattern)
            )
    return tuple(found)


def shows(row: Row, pattern: Pattern) -> bool:
    """Whether the row has what the pattern needs; what it has beside that is taken away by the condition."""
    text, photos = bool(row.title or row.description), bool(row.photos)
    return {"both": text and photos, "text": text, "photos": photos}[pattern]


def trust(
    confidence: Tensor,
    right: Tensor,
    by: Sequence[Pattern],
    vouched: Sequence[bool],
    asked: int,
    attribute: Attribute,
    calibration: AttributeCalibration,
    pattern: Pattern,
) -> Trust:
    """From confidences, whether they were right, the patterns whose numbers decide on them and whether they are
    `vouched` for, (N,) each; `asked` are the rows that coverage is a share of.

    Of several values only those that are offered count, as in `evaluate`.
    """
    auto_from = calibration.auto_from[pattern]
    decisions = [calibration.decide(*one) for one in zip(confidence.tolist(), by, vouched, strict=True)]
    sure = torch.tensor([decision == "auto" for decision in decisions], dtype=torch.bool)
    if attribute.multiple:
        offered = torch.tensor([decision != "abstain" for decision in decisions], dtype=torch.bool)
        confidence, right, sure, asked = (
            confidence[offered],
            right[offered],
            sure[offered],
            int(offered.sum()),
        )
    points, auto = curve(confidence, right, asked), None
    if auto_from is not None and sure.any():
        auto = Point(int(sure.sum()) / asked, float(right[sure].float().mean()), auto_from)
    return Trust(
        pattern=pattern,
        offers=len(confidence),
        ece=ece(confidence, right),
        bins=bins(confidence, right),
        curve=thinned(points),
        auto_from=auto_from,
        auto=auto,
    )


def bins(confidence: Tensor, right: Tensor) -> tuple[Bin, ...]:
    """The bins of the calibration error that hold an offer, the least confident first."""
    of = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
    found = []
    for number in of.unique().tolist():
        inside = of == number
        count, hits = int(inside.sum()), int(right[inside].sum())
        interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
        found.append(Bin(float(confidence[inside].mean()), hits / count, interval.low, interval.high, count))
    return tuple(found)


def curve(confidence: Tensor, right: Tensor, asked: int) -> list[Point]:
    """A point for each confidence that occurs, the strictest first; coverage is the share of `asked`."""
    if not len(confidence):
        return []
    order = confidence.argsort(descending=True, stable=True)
    ranked = confidence[order].double().numpy()
    hits = right[order].double().cumsum(0).numpy()
    # A threshold takes all offers of the same confidence or none.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return [Point((n + 1) / asked, float(hits[n]) / (n + 1), float(ranked[n])) for n in last.tolist()]


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most CURVE_POINTS of them, evenly spaced in coverage, the last one among them."""
    if len(points) <= CURVE_POINTS:
        return tuple(points)
    coverages = np.array([point.coverage for point in points])
    wanted = np.linspace(1 / CURVE_POINTS, 1, CURVE_POINTS) * coverages[-1]
    return tuple(points[n] for n in np.unique(np.searchsorted(coverages, wanted - 1e-9)).tolist())
