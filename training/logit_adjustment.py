"""Rare values get back a part of what their rarity costs them: logit adjustment (Menon et al. 2021)."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from models.fusion import FusionTagger
from models.taxonomy import Taxonomy
from training.recipe import TrainSection
from training.table import Row


def adjust(model: FusionTagger, rows: Sequence[Row], taxonomy: Taxonomy, section: TrainSection) -> None:
    """In place: every logit of a single choice falls by a share of the log of the value's share of the rows.

    `logit_adjustment` of it is taken from the biases of both unimodal heads; the fused answer mixes them with weights
    that sum to one, and so falls by the same. `fused_adjustment` is taken from the fused head, and so from nothing but
    the answer to text and photos together: photos know rare values worst, and outvote titles that name one.
    """
    rarity = log_shares(rows, taxonomy).to(model.fused_head.bias.device)
    with torch.no_grad():
        for head in (model.text_head, model.photo_head):
            head.bias.sub_(section.logit_adjustment * rarity)
        model.fused_head.bias.sub_(section.fused_adjustment * rarity)


def log_shares(rows: Sequence[Row], taxonomy: Taxonomy) -> Tensor:
    """(W,): 0 for values of which a product has several. Values without a row count as one."""
    shares = []
    for attribute in taxonomy:
        count = Counter(value for row in rows for value in row.values.get(attribute.name, ()))
        found = torch.tensor([max(1, count[value]) for value in attribute.values], dtype=torch.float)
        shares.append(torch.zeros_like(found) if attribute.multiple else (found / found.sum()).log())
    return torch.cat(shares)
