"""Settles how much the fused answer listens to the text and how much to the photos, by products held out of training.

While it learns, the text is nearly always right: a network knows the texts it has seen by heart, the sooner the fewer
they are. So the gates come to trust it more than it deserves on texts that are new. Here each attribute's gate is
shifted to where the labels of the held-out products are most likely, as they are and with masked titles, so that a
title that tells nothing is not believed either (stacked generalisation, Wolpert 1992). An attribute whose held-out
products would then be answered right less often keeps its gate, as those of a large catalogue mostly do.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.fusion import Embedded, FusionOutput, FusionTagger
from models.taxonomy import Taxonomy
from training.conditions import Condition, shown
from training.data import targets_of
from training.evaluation import labelled, score
from training.losses import attribute_loss
from training.stages import Material
from training.table import Row

CONDITIONS: tuple[Condition, ...] = ("as_is", "masked_titles")
MOST = 1024  # products, which tell one number well enough; more would only take memory
BATCH = 128
STEPS = 100


def settle_gates(model: FusionTagger, material: Material) -> None:
    """In place. The shift has a normal prior around none, so that a few products move it little."""
    model.eval()
    rows = list(material.validation[:: -(-len(material.validation) // MOST)])
    poorer = [row for condition in CONDITIONS for row in shown(rows, condition, material.taxonomy)]
    embedded = embed(model, material, poorer)
    both = embedded.has_text & embedded.has_photos
    if not both.any():
        return
    embedded = Embedded(*(getattr(embedded, field.name)[both] for field in fields(embedded)))
    targets = tuple(target.to(both.device)[both] for target in targets_of(poorer, material.taxonomy))
    last = model.gate[-1]
    assert isinstance(last, nn.Linear)
    fuse = Fuse(model)

    def unlikely(shift: Tensor, scale: Tensor) -> Tensor:
        """The negative logarithm of what labels and prior say of the shifts and scales (A,)."""
        replaced = {"model.gate.2.bias": shifted(last.bias, shift)}
        output: FusionOutput = functional_call(fuse, replaced, (embedded,))
        loss = (shift.square().sum() + scale.square().sum()) / 2
        for index, (attribute, target) in enumerate(zip(material.taxonomy, targets, strict=True)):
            logits = output.fused[index] * scale[index].exp()
            loss = loss + labelled(target, attribute).sum() * attribute_loss(
                logits, target, both[both], attribute.multiple, 0.0
            )
        return loss

    shift = torch.zeros(len(material.taxonomy), device=both.device)
    scale = torch.zeros_like(shift)
    minimise(lambda: unlikely(shift, scale), [shift])
    # The temperature of the whole answer is the calibration's to find, and here only kept from speaking for the gates.
    # It comes in second: an answer that is cold enough says nothing, and from there no way leads to good gates.
    minimise(lambda: unlikely(shift, scale), [shift, scale])
    with torch.no_grad():
        replaced = {"model.gate.2.bias": shifted(last.bias, shift)}
        before = right(fuse(embedded), targets, material.taxonomy)
        after = right(functional_call(fuse, replaced, (embedded,)), targets, material.taxonomy)
        shift[after < before] = 0.0
        last.bias.copy_(shifted(last.bias, shift))


@torch.no_grad()
def embed(model: FusionTagger, material: Material, rows: list[Row]) -> Embedded:
    """Of all rows, each as both modalities in the fused space."""
    device = model.absent_text.device
    parts = [model.embed(batch.batch.to(device)) for batch in material.loader(rows, BATCH)]
    return Embedded(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Embedded)))


def minimise(loss: Callable[[], Tensor], numbers: list[Tensor]) -> None:
    """In place; only these numbers, whatever else learns."""
    for number in numbers:
        number.requires_grad_(True)
    optimizer = torch.optim.LBFGS(numbers, max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        found = loss()
        for number, grad in zip(numbers, torch.autograd.grad(found, numbers), strict=True):
            number.grad = grad
        return found

    optimizer.step(closure)


def shifted(bias: Tensor, shift: Tensor) -> Tensor:
    """The gates' last bias (2A,), two for each attribute, towards the text by `shift` (A,) and away from the photos."""
    return bias + torch.stack([shift, -shift], dim=1).flatten()


def right(output: FusionOutput, targets: Sequence[Tensor], taxonomy: Taxonomy) -> Tensor:
    """(A,): the share of an attribute's products that the fused answer gets right, 0 where none has a label."""
    shares = []
    for attribute, logits, target in zip(taxonomy, output.fused, targets, strict=True):
        rows = labelled(target, attribute)
        shares.append(score(attribute, logits[rows].cpu(), target[rows].cpu())["accuracy"] or 0.0)
    return torch.tensor(shares, device=output.embedding.device)


class Fuse(nn.Module):
    """The fusion alone, of what is embedded already."""

    def __init__(self, model: FusionTagger) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: Embedded) -> FusionOutput:
        return self.model.fuse(embedded)
