"""Whether an attribute applies: what the targets say of it, and how well a model tells.

N rows, V values of an attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.scope import InScope
from models.taxonomy import Taxonomy, parents_first
from training.data import MISSING


@dataclass(frozen=True)
class Known:
    """bool (N,) each: the rows that an attribute is known to apply to, and those that it is known not to."""

    inside: Tensor
    outside: Tensor


def known(targets: Sequence[Tensor], taxonomy: Taxonomy) -> tuple[Known, ...]:
    """One Known for each attribute, from the labels of its parents; without a label neither is known."""
    index = {attribute.name: position for position, attribute in enumerate(taxonomy)}
    found: dict[str, Known] = {}
    for name in parents_first(taxonomy.scopes):
        scope = taxonomy.scopes[name]
        if scope is None:
            everywhere = torch.ones(len(targets[index[name]]), dtype=torch.bool)
            found[name] = Known(everywhere, ~everywhere)
            continue
        parent, target = taxonomy.attributes[index[scope.attribute]], targets[index[scope.attribute]]
        places = torch.tensor([parent.values.index(value) for value in scope.values])
        if parent.multiple:
            labelled, hit = ~target.isnan().any(dim=1), (target[:, places] > 0.5).any(dim=1)
        else:
            labelled, hit = target != MISSING, torch.isin(target, places)
        found[name] = Known(labelled & hit, found[scope.attribute].outside | (labelled & ~hit))
    return tuple(found[attribute.name] for attribute in taxonomy)


def told(of: InScope, truth: Known, seen: Tensor) -> dict[str, float | None]:
    """Precision and recall of `applies` over the rows that are `seen` (N,) and where it is known; None without any."""
    right = int((of.offered & truth.inside & seen).sum())
    offered = right + int((of.offered & truth.outside & seen).sum())
    applying = int((truth.inside & seen).sum())
    return {
        "precision": right / offered if offered else None,
        "recall": right / applying if applying else None,
    }
