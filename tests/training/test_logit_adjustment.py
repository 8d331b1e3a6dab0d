"""What rarity costs a value is taken back by a share."""

import torch

from models.fusion import FusionConfig, FusionTagger, collate
from models.product import Product
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import PHOTO_CONFIG, picture, text_config, tiny_checkpoint
from training.logit_adjustment import adjust
from training.table import Row

TAXONOMY = Taxonomy(
    (Attribute("colour", ("black", "mauve", "sold out")), Attribute("wool", ("yes", "no"), True))
)


def row(colour: str) -> Row:
    return Row("1", "title", "", (), "group", {"colour": (colour,), "wool": ("yes",)})


def test_every_head_falls_by_the_logs_of_the_shares_of_a_single_choice():
    torch.manual_seed(0)
    model = FusionTagger(FusionConfig(text_config(), PHOTO_CONFIG, (3, 2), width=16)).eval()
    see = tiny_checkpoint().preprocessor
    batch = collate([see(Product("red shirt", "", (picture("red"),))), see(Product("red shirt"))])
    with torch.no_grad():
        before = model(batch)
        adjust(model, [row("black")] * 8 + [row("mauve")] * 2, TAXONOMY, 0.5)
        after = model(batch)
    shares = torch.tensor([8 / 11, 2 / 11, 1 / 11])  # a value without a row counts as one
    for head in ("fused", "text_only", "photo_only"):
        moved = getattr(after, head)[0] - getattr(before, head)[0]
        torch.testing.assert_close(moved, -0.5 * shares.log().expand(2, 3))
        torch.testing.assert_close(getattr(after, head)[1], getattr(before, head)[1])
