"""Rare values get back a part of what their rarity costs them: logit adjustment (Menon et al. 2021)."""

from collections import Counter
from collections.abc import Sequence

import torch

from models.fusion import FusionTagger
from models.taxonomy import Taxonomy
from training.table import Row


def adjust(model: FusionTagger, rows: Sequence[Row], taxonomy: Taxonomy, strength: float) -> None:
    """In place: every logit of a single choice falls by `strength` times the log of the value's share of the rows.

    It is taken from the biases of both unimodal heads; the fused answer mixes them with weights that sum to one, and
    so falls by the same. Values without a row count as one.
    """
    shift = torch.zeros(sum(taxonomy.sizes))
    at = 0
    for attribute in taxonomy:
        count = Counter(value for row in rows for value in row.values.get(attribute.name, ()))
        shares = torch.tensor([max(1, count[value]) for value in attribute.values], dtype=torch.float)
        if not attribute.multiple:
            shift[at : at + len(shares)] = strength * (shares / shares.sum()).log()
        at += len(shares)
    with torch.no_grad():
        for head in (model.text_head, model.photo_head):
            head.bias.sub_(shift.to(head.bias.device))
