"""Finds the numbers of `calibration.json` on a split that nothing was trained or chosen on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from torch import Tensor

from models.calibration import (
    IDENTITY,
    PATTERN_IN_WORDS,
    PATTERNS,
    AttributeCalibration,
    Calibration,
    Modality,
    Pattern,
    familiarity,
    least_auto,
    log_odds,
)
from models.taxonomy import Attribute, Taxonomy
from training.applicable import known
from training.errors import RecipeError
from training.evaluation import Logits, judged, labelled, mean_loss, offers, said
from training.promise import fewest, safe_threshold
from training.recipe import CalibrationSection
from training.seen import Seen, shows

# Of the shop's own texts and photos so many are taken for strange: what it costs to send strange products to a person.
STRANGE = 0.02
# Logs of temperatures: from four times sharper to ten times softer than trained.
COLDEST, WARMEST = math.log(0.25), math.log(10)


def calibrate(seen: Seen, taxonomy: Taxonomy, section: CalibrationSection) -> Calibration:
    """Each attribute has numbers of its own for each pattern, from the rows that show it."""
    found = Calibration(
        tuple(
            calibrate_attribute(attribute, index, seen, section) for index, attribute in enumerate(taxonomy)
        ),
        {
            "text": least_familiar(seen.runs["text"], seen.runs["text"].text_only, "text", taxonomy),
            "photos": least_familiar(seen.runs["photos"], seen.runs["photos"].photo_only, "photos", taxonomy),
        },
    )
    if any(attribute.applies_when is not None for attribute in taxonomy):
        for pattern in PATTERNS:
            set_scoped_thresholds(found, taxonomy, seen, pattern, section.certainty)
    return found


def calibrate_attribute(
    attribute: Attribute, index: int, seen: Seen, section: CalibrationSection
) -> AttributeCalibration:
    target = seen.targets[index]
    asked = labelled(target, attribute)
    rows = {pattern: asked & shows(seen.runs[pattern].patterns, pattern) for pattern in PATTERNS}
    text, photos = seen.runs["text"].text_only[index], seen.runs["photos"].photo_only[index]
    found = AttributeCalibration(
        section.targets.get(attribute.name, section.target_precision),
        dict.fromkeys(PATTERNS, 1.0),
        dict.fromkeys(PATTERNS),
        best_temperature(attribute, text[rows["text"]], target[rows["text"]]),
        best_temperature(attribute, photos[rows["photos"]], target[rows["photos"]]),
    )
    both = seen.runs["both"]
    rows["both"] &= shows(found.patterns_for(both.served, both.text_only[index], attribute.multiple), "both")
    for pattern in PATTERNS:
        logits, wanted = seen.runs[pattern].fused[index][rows[pattern]], target[rows[pattern]]
        found.temperature[pattern] = best_temperature(attribute, logits, wanted)
        found.beta[pattern] = best_beta(attribute, logits / found.temperature[pattern], wanted)
        confidence = found.confidences(logits, [pattern] * len(logits), attribute.multiple)
        owner = seen.owner[rows[pattern].numpy()]
        found.auto_from[pattern] = threshold(
            attribute, confidence, wanted, owner, found.target_precision, section.certainty
        )
    return found


def check_targets(targets: Mapping[str, float], taxonomy: Taxonomy) -> None:
    """Raises RecipeError for a precision of an attribute that there is none of."""
    names = [attribute.name for attribute in taxonomy]
    for name in targets:
        if name not in names:
            raise RecipeError(
                f"no attribute {name!r} to promise a precision of; there are {', '.join(names)}"
            )


def certainty_of(metrics: Mapping[str, Any]) -> float:
    """With which a checkpoint of these metrics was calibrated."""
    return (
        float(metrics["contract"]["certainty"]) if "contract" in metrics else CalibrationSection().certainty
    )


def least_familiar(
    run: Logits, heads: Sequence[Tensor], modality: Modality, taxonomy: Taxonomy
) -> float | None:
    """The familiarity that all but STRANGE of these rows have; None where none has the modality."""
    found = familiarity(heads, taxonomy)[shows(run.patterns, modality)]
    return float(np.quantile(found.numpy(), STRANGE)) if len(found) else None


def set_scoped_thresholds(
    found: Calibration, taxonomy: Taxonomy, seen: Seen, pattern: Pattern, certainty: float
) -> None:
    """`auto_from` of the attributes that have a scope, from what is offered: also where they do not apply.

    It waits for the other numbers, as their confidences are made of those of their parents.
    """
    run = seen.runs[pattern]
    scoped, truth = said(run, taxonomy, found), known(seen.targets, taxonomy)
    by_attribute = found.patterns_for(run.served, run.text_only, taxonomy)
    for attribute, one, target, of, applies, patterns in zip(
        taxonomy, found.attributes, seen.targets, scoped, truth, by_attribute, strict=True
    ):
        if attribute.applies_when is not None:
            rows = judged(attribute, target, of, applies) & shows(patterns, pattern) & run.seen
            one.auto_from[pattern] = threshold(
                attribute,
                of.confidence[rows],
                target[rows],
                seen.owner[rows.numpy()],
                one.target_precision,
                certainty,
            )


def threshold(
    attribute: Attribute,
    confidence: Tensor,
    target: Tensor,
    owner: NDArray[np.int64],
    goal: float,
    certainty: float,
) -> float | None:
    """`auto_from` by confidences (N, V) and targets of rows, whose groups are `owner` (N,)."""
    offered, right = (part.numpy() for part in offers(confidence, target, attribute))  # (N, 1) or (N, V)
    # What is never `auto` is no part of the promise.
    kept = offered >= least_auto(goal)
    owner = np.broadcast_to(owner[:, np.newaxis], offered.shape)
    return safe_threshold(offered[kept], right[kept], owner[kept], goal, certainty)


def unpromised(
    calibration: Calibration, taxonomy: Taxonomy, seen: Seen, certainty: float, unseen: Modality | None
) -> Iterator[str]:
    """A sentence for each pattern of an attribute in which nothing is `auto`; of a modality that was `unseen` in
    training its checkpoint says so itself.
    """
    told = [pattern for pattern in PATTERNS if unseen is None or pattern not in ("both", unseen)]
    for attribute, one, target in zip(taxonomy, calibration.attributes, seen.targets, strict=True):
        counts = {
            pattern: int((labelled(target, attribute) & shows(seen.runs[pattern].patterns, pattern)).sum())
            for pattern in told
        }
        if without := [PATTERN_IN_WORDS[pattern] for pattern, rows in counts.items() if not rows]:
            yield (
                f"{attribute.name} from {', '.join(without)}: no product to calibrate on shows it with a value, so its"
                " confidences are not calibrated and every value goes to review"
            )
        for pattern, rows in counts.items():
            if rows and one.auto_from[pattern] is None:
                least = fewest(one.target_precision, certainty)
                why = (
                    f"{rows} products are too few, it takes at least {least} that are all right"
                    if rows < least and not attribute.multiple
                    else f"no confidence is safe enough on {rows} products"
                )
                yield (
                    f"{attribute.name} from {PATTERN_IN_WORDS[pattern]}: a precision of {one.target_precision:g} is"
                    f" not promised ({why}), so every value goes to review"
                )


def best_temperature(attribute: Attribute, logits: Tensor, target: Tensor) -> float:
    """That with the least loss, which is convex in 1 / T; 1.0 where there is nothing to learn from."""
    if not len(logits) or not (attribute.multiple or bool((target >= 0).any())):
        return 1.0

    def loss(log_temperature: float) -> float:
        return mean_loss(attribute, logits / math.exp(log_temperature), target)

    found = minimize_scalar(loss, bounds=(COLDEST, WARMEST), method="bounded", options={"xatol": 1e-3})
    return math.exp(found.x)


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
