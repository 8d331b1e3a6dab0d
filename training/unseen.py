"""A modality that no training product had, text or photos: its side of the network learned nothing, so it is closed.

Where the other one is there as well, a fusion that never learned would take what an untrained head says at face value.
Closed, the answer is that of what was seen, and so the calibration of what was seen holds for it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.calibration import MODALITIES, PATTERNS, Calibration, Modality
from models.checkpoint import load
from models.fusion import FusionTagger
from training.recipe import Recipe
from training.table import Row

CLOSED = 30.0  # of a gate's score, against -30 of the other: a weight of 1, whatever the precision
NEVER = 1e9  # a familiarity, the size of a logit, that nothing reaches
SENTENCES: dict[Modality, str] = {
    "photos": (
        "No training product had photos, so this checkpoint does not look at them: beside a text they change no tag, "
        "and what it says of photos alone is worth nothing and never `auto`. To use photos, train on a table with them."
    ),
    "text": (
        "No training product had a text, so this checkpoint does not read any: beside photos it changes no tag, and "
        "what it says of a text alone is worth nothing and never `auto`. To use texts, train on a table with them."
    ),
}


def unseen_of(recipe: Recipe, rows: Sequence[Row]) -> Modality | None:
    """What none of these rows to train on has, unless heads are kept that saw it."""
    found: Modality | None = None
    if not any(row.photos for row in rows):
        found = "photos"
    elif not any(row.title or row.description for row in rows):
        found = "text"
    if found and (recipe.backbones.keep_heads or recipe.replay is not None):
        return found if unseen_in(load(recipe.backbones.checkpoint).metrics) == found else None
    return found


def unseen_in(metrics: dict[str, Any]) -> Modality | None:
    """Of a checkpoint with these metrics."""
    return metrics.get("unseen")


def close(model: FusionTagger, unseen: Modality) -> None:
    """In place: with both modalities there every answer is that of the one that was seen."""
    last = model.gate[-1]
    assert isinstance(last, nn.Linear)
    gates = [CLOSED, -CLOSED] if unseen == "photos" else [-CLOSED, CLOSED]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(gates).repeat(len(last.bias) // 2))
        # It learns only from products that have both.
        model.fused_head.weight.zero_()
        model.fused_head.bias.zero_()
        if unseen == "text" and model.names is not None:
            model.names.weights.zero_()  # no gate stands before them


def with_unseen(calibration: Calibration, unseen: Modality | None) -> Calibration:
    """The numbers of what was seen for every pattern; whether a product is familiar is for that alone to say."""
    if unseen is None:
        return calibration
    (seen,) = (modality for modality in MODALITIES if modality != unseen)
    attributes = tuple(
        replace(
            one,
            temperature=dict.fromkeys(PATTERNS, one.temperature[seen]),
            beta=dict.fromkeys(PATTERNS, one.beta[seen]),
            auto_from=dict.fromkeys(PATTERNS, one.auto_from[seen]),
        )
        for one in calibration.attributes
    )
    return Calibration(attributes, {**calibration.familiar_from, unseen: NEVER})
