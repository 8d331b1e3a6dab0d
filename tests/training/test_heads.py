"""What a checkpoint knows of a value follows the value into another taxonomy."""

import torch

from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint, tiny_model
from training.heads import keep_heads

OTHER = Taxonomy(
    (
        Attribute("kind", ("bag", "shoe", "shirt")),
        Attribute("material", ("wool", "linen")),  # one at a time: another question than the old one
        Attribute("colour", ("blue", "pink", "red")),
    )
)


def test_shared_values_keep_their_rows_and_others_stay_fresh():
    old, model = tiny_checkpoint(TAXONOMY), tiny_model(OTHER)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1)
    keep_heads(model, OTHER, old)
    for name in ("text_head", "photo_head", "fused_head"):
        rows, known = getattr(model, name).weight, getattr(old.model, name).weight
        # old rows: red green blue | shirt shoe | cotton linen wool
        kept = {1: 4, 2: 3, 5: 2, 7: 0}
        for row in range(8):
            torch.testing.assert_close(
                rows[row], known[kept[row]] if row in kept else rows.new_full((16,), -1)
            )
        torch.testing.assert_close(getattr(model, name).bias[7], getattr(old.model, name).bias[0])
    gate, known = model.gate[2].weight, old.model.gate[2].weight
    torch.testing.assert_close(gate[:2], known[2:4])  # kind
    assert (gate[2:4] == -1).all()  # material
    torch.testing.assert_close(gate[4:], known[:2])  # colour
