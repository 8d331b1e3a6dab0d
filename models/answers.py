"""From the network's logits to what a tag is made of: calibrated, in scope, for each modality alone as well.

Tensors in and tensors out, and whatever is there the same operations, so that `models.traced` can make it a graph.
Legend: B products, P photos, T tokens, D width of the fused space, A attributes, W all values together.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.calibration import Calibration, indices
from models.fusion import FusionTagger
from models.scope import in_scope
from models.taxonomy import Taxonomy


class Answers(NamedTuple):
    """On the CPU. `confidence` of the fused head and what `text` and `photos` alone say, float32 (B, W) each; `offered`
    bool (B, A), whether an attribute is asked for; `pattern` int64 (B, A), an index of PATTERNS, whose numbers count;
    `vouched` bool (B, W), see `Calibration.vouched_at`; `has_text`, `has_photos` bool (B,); `embedding` float32 (B, D).
    """

    confidence: Tensor
    offered: Tensor
    pattern: Tensor
    vouched: Tensor
    text: Tensor
    photos: Tensor
    has_text: Tensor
    has_photos: Tensor
    embedding: Tensor


class Answering(nn.Module):
    """Everything after the towers."""

    def __init__(self, model: FusionTagger, taxonomy: Taxonomy, calibration: Calibration) -> None:
        super().__init__()
        self.layers = model.after_towers()
        self.widths = model.text_tower.width, model.photo_tower.width
        self.taxonomy = taxonomy
        self.calibration = calibration

    def forward(self, *given: Tensor) -> Answers:
        """`given` as `FusionTagger.join` takes it."""
        output = self.layers.fuse(self.layers.join(*given))
        has_text, has_photos = output.has_text.cpu(), output.has_photos.cpu()
        fused, text_only, photo_only = (
            [on_cpu(head) for head in heads] for heads in (output.fused, output.text_only, output.photo_only)
        )
        of = indices(has_text, has_photos)
        by_attribute = self.calibration.patterns_at(of, text_only, self.taxonomy)
        attributes = self.calibration.attributes
        scoped = in_scope(
            self.taxonomy,
            [
                one.confidences_at(head, each, attribute.multiple)
                for one, head, each, attribute in zip(
                    attributes, fused, by_attribute, self.taxonomy, strict=True
                )
            ],
        )
        text, photos = self.calibration.alone(text_only, photo_only, self.taxonomy)
        vouched = self.calibration.vouched_at(text_only, photo_only, of, self.taxonomy)
        return Answers(
            confidence=torch.cat([one.confidence for one in scoped], dim=1),
            offered=torch.stack([one.offered for one in scoped], dim=1),
            pattern=torch.stack(by_attribute, dim=1),
            vouched=torch.cat(vouched, dim=1),
            text=torch.cat(text, dim=1),
            photos=torch.cat(photos, dim=1),
            has_text=has_text,
            has_photos=has_photos,
            embedding=on_cpu(output.embedding),
        )


def on_cpu(logits: Tensor) -> Tensor:
    """Probabilities are taken in float32 whatever the towers ran in."""
    return logits.float().cpu()
