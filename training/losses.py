"""What a step minimises. A missing label is masked, never a value; a head is only judged where its modality
is there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.fusion import FusionOutput
from models.taxonomy import Taxonomy
from training.data import MISSING

Taught = tuple[Tensor | None, ...]  # as in `training.data.Labelled`


def tagging_loss(
    output: FusionOutput,
    targets: tuple[Tensor, ...],
    taxonomy: Taxonomy,
    unimodal_weight: float,
    smoothing: float,
    taught: Taught = (),
    share: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """The mean over the attributes of fused + unimodal_weight * (text-only + photo-only), and its parts. With `share`
    what is `taught` takes the place of the labels.
    """
    everyone = torch.ones_like(output.has_text)
    heads = (
        ("fused", output.fused, everyone, 1.0),
        ("text_only", output.text_only, output.has_text, unimodal_weight),
        ("photo_only", output.photo_only, output.has_photos, unimodal_weight),
    )
    total = output.fused[0].new_zeros(())
    report = {}
    for name, logits, present, weight in heads:
        head = head_loss(logits, targets, present, taxonomy, smoothing, taught, share)
        total = total + weight * head
        report[name] = head.item()
    return total, report


def head_loss(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    present: Tensor,
    taxonomy: Taxonomy,
    smoothing: float,
    taught: Taught = (),
    share: float = 0.0,
) -> Tensor:
    """The mean over the attributes of one head."""
    taught = taught or (None,) * len(targets)
    parts = [
        attribute_loss(of_one, target, present, attribute.multiple, smoothing, said, share)
        for of_one, target, attribute, said in zip(logits, targets, taxonomy, taught, strict=True)
    ]
    return torch.stack(parts).mean()


def attribute_loss(
    logits: Tensor,
    target: Tensor,
    present: Tensor,
    multiple: bool,
    smoothing: float,
    taught: Tensor | None = None,
    share: float = 0.0,
) -> Tensor:
    """Cross-entropy over one choice, binary cross-entropy over several; zero where nothing is labelled. In float32:
    a head may have answered in bf16, whose eight bits are too few to take a logarithm of a sum in.
    """
    logits = logits.float()
    if multiple:
        labelled = present & ~target.isnan().any(dim=1)
        if not labelled.any():
            return logits.sum() * 0
        if taught is not None:
            target = (1 - share) * target + share * taught
        return functional.binary_cross_entropy_with_logits(logits[labelled], target[labelled])
    target = target.masked_fill(~present | (target < 0), MISSING)
    known = target != MISSING
    if not known.any():
        return logits.sum() * 0
    loss = functional.cross_entropy(logits, target, ignore_index=MISSING, label_smoothing=smoothing)
    if taught is not None:
        loss = (1 - share) * loss + share * functional.cross_entropy(logits[known], taught[known])
    return loss
