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


def tagging_loss(
    output: FusionOutput,
    targets: tuple[Tensor, ...],
    taxonomy: Taxonomy,
    unimodal_weight: float,
    smoothing: float,
) -> tuple[Tensor, dict[str, float]]:
    """The mean over the attributes of fused + unimodal_weight * (text-only + photo-only), and its parts."""
    everyone = torch.ones_like(output.has_text)
    heads = (
        ("fused", output.fused, everyone, 1.0),
        ("text_only", output.text_only, output.has_text, unimodal_weight),
        ("photo_only", output.photo_only, output.has_photos, unimodal_weight),
    )
    total = output.fused[0].new_zeros(())
    report = {}
    for name, logits, present, weight in heads:
        head = head_loss(logits, targets, present, taxonomy, smoothing)
        total = total + weight * head
        report[name] = head.item()
    return total, report


def head_loss(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    present: Tensor,
    taxonomy: Taxonomy,
    smoothing: float,
) -> Tensor:
    """The mean over the attributes of one head."""
    parts = [
        attribute_loss(of_one, target, present, attribute.multiple, smoothing)
        for of_one, target, attribute in zip(logits, targets, taxonomy, strict=True)
    ]
    return torch.stack(parts).mean()


def attribute_loss(
    logits: Tensor, target: Tensor, present: Tensor, multiple: bool, smoothing: float
) -> Tensor:
    """Cross-entropy over one choice, binary cross-entropy over several; zero where nothing is labelled. In float32:
    a head may have answered in bf16, whose eight bits are too few to take a logarithm of a sum in.
    """
    logits = logits.float()
    if multiple:
        labelled = present & ~target.isnan().any(dim=1)
        if not labelled.any():
            return logits.sum() * 0
        return functional.binary_cross_entropy_with_logits(logits[labelled], target[labelled])
    target = target.masked_fill(~present | (target < 0), MISSING)
    if not (target != MISSING).any():
        return logits.sum() * 0
    return functional.cross_entropy(logits, target, ignore_index=MISSING, label_smoothing=smoothing)
