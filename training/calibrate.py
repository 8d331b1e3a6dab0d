"""Finds the numbers of `calibration.json` on a split that nothing was trained or chosen on."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import beta
from torch import Tensor

from models.calibration import (
    IDENTITY,
    PATTERNS,
    AttributeCalibration,
    Calibration,
    Pattern,
    log_odds,
)
from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Attribute, Taxonomy
from training.applicable import known, said
from training.conditions import Condition, shown
from training.data import targets_of
from training.evaluation import Logits, evaluate_rows, judged, labelled, mean_loss, offers
from training.recipe import CalibrationSection
from training.table import Row

# Candidate temperatures: from four times sharper to ten times softer than trained, in steps of about 2 %.
TEMPERATURES = torch.logspace(-0.6, 1.0, 200).tolist()
SHOWN: dict[Pattern, Condition] = {"both": "as_is", "text": "without_photos", "photos": "without_text"}


def calibrate(
    model: FusionTagger,
    rows: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    section: CalibrationSection,
    workers: int,
) -> Calibration:
    """Runs the rows three times: whole, without photos and without text, so that each pattern has its own
    numbers.
    """
    targets = targets_of(rows, taxonomy)
    runs = {
        pattern: evaluate_rows(model, shown(rows, condition, taxonomy), preprocessor, workers)
        for pattern, condition in SHOWN.items()
    }
    found = Calibration(
        tuple(
            calibrate_attribute(attribute, index, targets[index], runs, section)
            for index, attribute in enumerate(taxonomy)
        )
    )
    for pattern, run in runs.items():
        set_scoped_thresholds(found, taxonomy, targets, run, pattern, section.certainty)
    return found


def calibrate_attribute(
    attribute: Attribute, index: int, target: Tensor, runs: dict[Pattern, Logits], section: CalibrationSection
) -> AttributeCalibration:
    text, text_target = of_pattern(attribute, runs["text"].text_only[index], target, runs["text"], "text")
    photo, photo_target = of_pattern(
        attribute, runs["photos"].photo_only[index], target, runs["photos"], "photos"
    )
    found = AttributeCalibration(
        section.targets.get(attribute.name, section.target_precision),
        dict.fromkeys(PATTERNS, 1.0),
        dict.fromkeys(PATTERNS),
        best_temperature(attribute, text, text_target),
        best_temperature(attribute, photo, photo_target),
    )
    for pattern in PATTERNS:
        logits, wanted = of_pattern(attribute, runs[pattern].fused[index], target, runs[pattern], pattern)
        found.temperature[pattern] = best_temperature(attribute, logits, wanted)
        found.beta[pattern] = best_beta(attribute, logits / found.temperature[pattern], wanted)
        confidence, right = offers(
            found.confidences(logits, [pattern] * len(logits), attribute.multiple), wanted, attribute
        )
        found.auto_from[pattern] = lowest_safe_threshold(
            confidence.flatten(), right.flatten(), found.target_precision, section.certainty
        )
    return found


def set_scoped_thresholds(
    found: Calibration,
    taxonomy: Taxonomy,
    targets: tuple[Tensor, ...],
    run: Logits,
    pattern: Pattern,
    certainty: float,
) -> None:
    """`auto_from` of the attributes that have a scope, from what is offered: also where they do not apply.

    It waits for the other numbers, as their confidences are made of those of their parents.
    """
    scoped, truth = said(run.fused, run.patterns, taxonomy, found), known(targets, taxonomy)
    shows = torch.tensor([of == pattern for of in run.patterns])
    for attribute, one, target, of, applies in zip(
        taxonomy, found.attributes, targets, scoped, truth, strict=True
    ):
        if attribute.applies_when is not None:
            rows = judged(attribute, target, of, applies) & shows
            confidence, right = offers(of.confidence[rows], target[rows], attribute)
            one.auto_from[pattern] = lowest_safe_threshold(
                confidence.flatten(), right.flatten(), one.target_precision, certainty
            )


def of_pattern(
    attribute: Attribute, logits: Tensor, target: Tensor, run: Logits, pattern: Pattern
) -> tuple[Tensor, Tensor]:
    """The labelled rows that show this pattern in this run: a row without photos cannot show "both"."""
    rows = labelled(target, attribute) & torch.tensor([found == pattern for found in run.patterns])
    return logits[rows], target[rows]


def best_temperature(attribute: Attribute, logits: Tensor, target: Tensor) -> float:
    """The candidate with the least loss; 1.0 where there is nothing to learn from."""
    if not len(logits):
        return 1.0
    return min(TEMPERATURES, key=lambda temperature: mean_loss(attribute, logits / temperature, target))


def best_beta(attribute: Attribute, scaled: Tensor, target: Tensor) -> list[float]:
    """a, b and c of the map that makes the offered confidences the likeliest (Kull et al. 2017).

    One temperature bends confident and doubtful answers alike, and spends itself on the values that nobody
    is offered. A standard normal prior around the map that changes nothing holds a short split still.
    """
    belief, doubt = (part.double().flatten().numpy() for part in log_odds(scaled, attribute.multiple))
    right = offers(scaled, target, attribute)[1].flatten().numpy()
    features = np.stack([belief, -doubt, np.ones_like(belief)])  # (3, offers)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin, step = weights @ features, weights - IDENTITY
        value = (np.logaddexp(0, margin) - right * margin).sum() + step @ step / 2
        return value, features @ (expit(margin) - right) + step

    # Falling maps are left out: more confidence is never less.
    return minimize(loss, IDENTITY, jac=True, bounds=[(0, None), (0, None), (None, None)]).x.tolist()


def lowest_safe_threshold(confidence: Tensor, right: Tensor, goal: float, certainty: float) -> float | None:
    """The lowest confidence from which the values kept the goal, sure enough not to be luck.

    Thresholds are tested from the strictest down and the walk ends at the first whose Clopper-Pearson lower
    bound falls under the goal: a fixed sequence of tests keeps the error of the whole walk at that of one
    (Angelopoulos et al. 2021, "Learn then Test"). None where even the strictest fails.
    """
    order = confidence.argsort(descending=True)
    confidence, hits = confidence[order], right[order].long().cumsum(0)
    safe = None
    for count in counts_to_test(len(confidence), goal, certainty):
        correct = int(hits[count - 1])
        bound = float(beta.ppf(1 - certainty, correct, count - correct + 1)) if correct else 0.0
        if bound < goal:
            break
        safe = float(confidence[count - 1])
    return safe


def counts_to_test(total: int, goal: float, certainty: float) -> list[int]:
    """How many of the most confident values each test takes: fixed by their number alone, never by what
    they are.

    Under `fewest` no bound reaches the goal even if every value is right, as goal ** n must fall under 1 -
    certainty. The walk starts at four times that where there are enough, or a single early mistake would
    end it.
    """
    fewest = math.ceil(math.log(1 - certainty) / math.log(goal))
    if total < fewest:
        return []
    first = max(fewest, min(4 * fewest, total // 2))
    return [*range(first, total, max(1, total // 100)), total]
