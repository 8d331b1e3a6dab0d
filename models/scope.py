"""From the probabilities of each attribute on its own to those of a taxonomy with scopes.

The head of a scoped attribute learned only from products that it applies to, so what it says is P(value |
applies). What a buyer is told is P(value and applies), the product of that and of P(applies), which the parent's
probabilities give. B products, V values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.taxonomy import Taxonomy, parents_first

# A question that more likely does not apply than applies is not answered.
APPLIES_ABOVE = 0.5


@dataclass(frozen=True)
class InScope:
    """Of one attribute: `confidence` (B, V) is P(value and applies), `applies` (B,) is P(applies).

    `offered` bool (B,): never True where the parent's most likely value is outside of the scope.
    """

    confidence: Tensor
    applies: Tensor
    offered: Tensor


def in_scope(taxonomy: Taxonomy, probabilities: Sequence[Tensor]) -> tuple[InScope, ...]:
    """One InScope for each attribute from the calibrated probabilities (B, V) of each on its own.

    Over a single-valued parent P(applies) is the sum of its values in scope. Over a multiple one, whose values
    may come together, it is the largest of them: no more can be said for sure without knowing how they hang
    together, so it is never too high. A parent with a scope of its own brings its P(applies) along.
    """
    index = {attribute.name: position for position, attribute in enumerate(taxonomy)}
    found: dict[str, InScope] = {}
    for name in parents_first(taxonomy.scopes):
        probability = probabilities[index[name]]
        scope = taxonomy.scopes[name]
        if scope is None:
            applies = torch.ones_like(probability[:, 0])
            found[name] = InScope(probability, applies, applies.bool())
            continue
        parent, above = taxonomy.attributes[index[scope.attribute]], found[scope.attribute]
        inside = torch.tensor([value in scope.values for value in parent.values])
        applies = above.confidence[:, inside].amax(dim=1)
        offered = above.offered
        if not parent.multiple:
            applies = above.confidence[:, inside].sum(dim=1).clamp(max=1)  # softmax rounds
            offered = offered & inside[above.confidence.argmax(dim=1)]
        confidence = applies.unsqueeze(1) * probability
        found[name] = InScope(confidence, applies, offered & (applies > APPLIES_ABOVE))
    return tuple(found[attribute.name] for attribute in taxonomy)
