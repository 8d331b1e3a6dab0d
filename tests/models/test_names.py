"""Names of values in token ids: whole, longest first, and adding what they weigh to every head that reads the title."""

import pytest
import torch

from models.fusion import FusionConfig, FusionTagger, collate
from models.names import NamedValues, key_of
from models.product import Product
from tests.tiny_tagger import PHOTO_CONFIG, picture, text_config, tiny_checkpoint

NAVY, BLUE, LIGHT, PIECE, OTHER = 5, 6, 7, 8, 9
SIZES = (3, 2)  # colours: blue, navy blue, light; kinds: blue (a word of both attributes), other


@pytest.fixture
def names():
    names = NamedValues(4, vocabulary=20, sizes=SIZES)
    continues = torch.zeros(20, dtype=torch.bool)
    continues[PIECE] = True
    names.look_for(
        {key_of((BLUE,), 0): 0, key_of((NAVY, BLUE), 0): 1, key_of((LIGHT,), 0): 2, key_of((BLUE,), 1): 3},
        continues,
    )
    return names


def found(names, *ids, mask=None):
    ids = torch.tensor([ids])
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else torch.tensor([mask])
    return names(ids, mask)[0].tolist()


def test_a_name_counts_for_its_value_in_every_attribute_that_has_it(names):
    assert found(names, OTHER, BLUE, OTHER) == [1, 0, 0, 1, 0]
    assert found(names, OTHER, OTHER) == [0, 0, 0, 0, 0]


def test_inside_a_longer_name_of_the_same_attribute_a_name_is_not_one(names):
    assert found(names, NAVY, BLUE) == [0, 1, 0, 1, 0]
    assert found(names, NAVY, BLUE, OTHER, BLUE) == [1, 1, 0, 1, 0]


def test_a_piece_of_a_longer_word_is_no_name(names):
    assert found(names, LIGHT, PIECE, OTHER) == [0, 0, 0, 0, 0]
    assert found(names, LIGHT, OTHER, PIECE) == [0, 0, 1, 0, 0]


def test_what_the_mask_hides_is_not_found_and_ends_a_word(names):
    assert found(names, BLUE, LIGHT, mask=[False, True]) == [0, 0, 1, 0, 0]
    assert found(names, LIGHT, PIECE, mask=[True, False]) == [0, 0, 1, 0, 0]
    assert found(names, NAVY, BLUE, mask=[True, False]) == [0, 0, 0, 0, 0]


def test_a_name_said_twice_counts_once_with_its_own_weight(names):
    names.weights = torch.tensor([float(value + 1) for value in names.values])
    assert found(names, BLUE, BLUE, LIGHT) == [1, 0, 3, 4, 0]


def test_rows_of_a_batch_do_not_mix(names):
    ids = torch.tensor([[OTHER, BLUE, 0], [LIGHT, OTHER, NAVY]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert names(ids, mask).tolist() == [[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]]


def test_a_name_in_the_title_moves_the_text_and_the_fused_answer_and_one_in_the_description_none():
    checkpoint = tiny_checkpoint()
    config = checkpoint.model.config
    named = FusionTagger(
        FusionConfig(text_config(), PHOTO_CONFIG, config.sizes, width=config.width, names=1)
    ).eval()
    named.load_state_dict(checkpoint.model.state_dict(), strict=False)
    named.photo_tower.normalise_with(checkpoint.preprocessor.config.mean, checkpoint.preprocessor.config.std)
    green = checkpoint.preprocessor.tokenizer.encode("green", add_special_tokens=False).ids
    value = 1  # of colour
    named.names.look_for({key_of(green, 0): value}, torch.zeros(config.text["vocab_size"], dtype=torch.bool))
    named.names.weights = torch.tensor([2.5])

    def change(product: Product) -> list[list[float]]:
        batch = collate([checkpoint.preprocessor(product)])
        with torch.inference_mode():
            plain, output = checkpoint.model(batch), named(batch)
        return [
            [round(x, 4) for x in (after[0] - before[0])[0].tolist()]
            for before, after in (
                (plain.fused, output.fused),
                (plain.text_only, output.text_only),
                (plain.photo_only, output.photo_only),
            )
        ]

    moved, still = [0.0, 2.5, 0.0], [0.0, 0.0, 0.0]
    assert change(Product("green shirt", photos=(picture("red"),))) == [moved, moved, still]
    assert change(Product("green shirt")) == [moved, moved, still]
    for title in ("shirt", ""):
        assert change(Product(title, "goes with green", (picture("red"),))) == [still, still, still]
