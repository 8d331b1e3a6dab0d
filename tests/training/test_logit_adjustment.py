"""What rarity costs a value is taken back by a share."""

import pytest
import torch

from models.fusion import FusionConfig, FusionTagger, collate
from models.product import Product
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import PHOTO_CONFIG, picture, text_config, tiny_checkpoint
from training.logit_adjustment import adjust
from training.recipe import TrainSection
from training.table import Row

TAXONOMY = Taxonomy(
    (Attribute("colour", ("black", "mauve", "sold out")), Attribute("wool", ("yes", "no"), True))
)


def row(colour: str) -> Row:
    return Row("1", "title", "", (), "group", {"colour": (colour,), "wool": ("yes",)})


@pytest.mark.parametrize(
    ("section", "fallen"),
    [
        (
            TrainSection(logit_adjustment=0.5),
            {"fused": (0.5, 0.5), "text_only": (0.5, 0.5), "photo_only": (0.5, 0.5)},
        ),
        # The second product has no photo, so that its fused answer is its text's.
        (
            TrainSection(fused_adjustment=0.2),
            {"fused": (0.2, 0.0), "text_only": (0.0, 0.0), "photo_only": (0.0, 0.0)},
        ),
    ],
)
def test_logits_of_a_single_choice_fall_by_the_logs_of_the_shares(section, fallen):
    torch.manual_seed(0)
    model = FusionTagger(FusionConfig(text_config(), PHOTO_CONFIG, (3, 2), width=16)).eval()
    see = tiny_checkpoint().preprocessor
    batch = collate([see(Product("red shirt", "", (picture("red"),))), see(Product("red shirt"))])
    with torch.no_grad():
        before = model(batch)
        adjust(model, [row("black")] * 8 + [row("mauve")] * 2, TAXONOMY, section)
        after = model(batch)
    shares = torch.tensor([8 / 11, 2 / 11, 1 / 11])  # a value without a row counts as one
    for head, by in fallen.items():
        moved = getattr(after, head)[0] - getattr(before, head)[0]
        torch.testing.assert_close(moved, -torch.tensor(by).unsqueeze(1) * shares.log())
        torch.testing.assert_close(getattr(after, head)[1], getattr(before, head)[1])
