"""What the training does to titles and photos, and that a seed repeats it."""

import numpy as np
import pytest
from PIL import Image

from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import picture, tiny_checkpoint
from training.augment import Augmenter
from training.data import Products
from training.recipe import AugmentSection
from training.table import Row

TAXONOMY = Taxonomy(
    (Attribute("colour", ("Navy Blue", "Red")), Attribute("type", ("Tshirts", "Casual Shoes")))
)
NOTHING = AugmentSection(drop_text=0, drop_photos=0, flip=0, crop=0)


def augmenter(**shares):
    return Augmenter(AugmentSection(**{**NOTHING.model_dump(), **shares}), TAXONOMY)


def test_a_share_of_one_masks_every_title():
    assert (
        augmenter(mask_values=0.999999).texts("red cotton tshirt", "", {}, np.random.default_rng(0))[0]
        == "cotton"
    )


def test_no_share_leaves_the_title_alone():
    random = np.random.default_rng(0)
    assert {augmenter().texts("red cotton tshirt", "", {}, random)[0] for _ in range(50)} == {
        "red cotton tshirt"
    }


def test_text_and_photos_are_never_hidden_together_nor_when_alone():
    both, random = augmenter(drop_text=0.5, drop_photos=0.49), np.random.default_rng(0)
    seen = {both.dropped(True, random) for _ in range(500)}
    assert seen == {(True, False), (False, True), (False, False)}
    assert {both.dropped(False, random) for _ in range(50)} == {(False, False)}


def test_dropped_words_keep_the_order_of_the_rest():
    title = " ".join(str(n) for n in range(100))
    kept = [
        int(word)
        for word in augmenter(drop_words=0.999999).texts(title, "", {}, np.random.default_rng(1))[0].split()
    ]
    assert 50 < len(kept) < 90
    assert kept == sorted(kept)


def test_a_crop_stays_inside_the_picture_and_within_its_share():
    picture, random = Image.new("RGB", (200, 100)), np.random.default_rng(0)
    for _ in range(100):
        _, (left, top, right, bottom) = augmenter(crop=0.2).photo(picture, random)
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 100
        assert right - left >= 160
        assert bottom - top >= 80


def test_a_flip_mirrors():
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((0, 0), (255, 0, 0))
    flipped, _ = augmenter(flip=0.999999).photo(picture, np.random.default_rng(0))
    assert flipped.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_makes_the_same_choices(seed):
    make = augmenter(drop_words=0.5, mask_values=0.3, crop=0.3, flip=0.5)
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    assert [make.texts("new red shoe by nike", "", {}, one)[0] for _ in range(20)] == [
        make.texts("new red shoe by nike", "", {}, other)[0] for _ in range(20)
    ]


def test_title_and_description_of_a_product_lose_their_telling_words_together():
    make, random = augmenter(mask_values=0.3), np.random.default_rng(0)
    shown = [make.texts("red cotton tshirt", "a red one", {}, random) for _ in range(300)]
    assert set(shown) == {("red cotton tshirt", "a red one"), ("cotton", "a one")}
    assert 60 < shown.count(("cotton", "a one")) < 120


def examples(row, epochs, **shares):
    """Of each epoch, with the tokens and photos that a network is given."""
    made = Products([row], tiny_checkpoint().preprocessor, augmenter(**shares))
    found = []
    for epoch in epochs:
        made.set_epoch(epoch)
        found.append(made[0][0])
    return found


def test_every_epoch_makes_a_product_harder_in_another_way():
    row = Row("1", "red green blue black white shirt shoe bag", "", (), "1", {})
    first, second, again = (one.token_ids.tolist() for one in examples(row, (0, 1, 0), drop_words=0.999999))
    assert first == again != second


def test_training_looks_at_as_many_photos_as_serving(tmp_path):
    (tmp_path / "red.jpg").write_bytes(picture("red"))
    row = Row("1", "red shirt", "", (tmp_path / "red.jpg",) * 5, "1", {})
    (example,) = examples(row, [0])
    assert len(example.photos) == tiny_checkpoint().preprocessor.config.max_photos == 3
