"""The network's promises: what is missing, how many photos, and that a batch changes nothing."""

import pytest
import torch

from models.fusion import WORDS_WEIGHT, FusionConfig, FusionTagger, collate
from models.product import Product
from models.towers import CPU_ROWS, Lexicon, even
from tests.tiny_tagger import PHOTO_CONFIG, TAXONOMY, picture, text_config, tiny_checkpoint

BOTH = Product("red shirt for men", "soft cotton", (picture("red"),))
LONG = Product("blue shoe with new soft wool and linen", "the black bag", (picture("blue"), picture("green")))
TEXT = Product("green shoe")
PHOTO = Product(photos=(picture("green"),))
NOTHING = Product()


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


def run(checkpoint, *products):
    with torch.inference_mode():
        return checkpoint.model(collate([checkpoint.preprocessor(product) for product in products]))


def test_every_attribute_has_logits_of_its_size(checkpoint):
    output = run(checkpoint, BOTH, TEXT)
    for head in (output.fused, output.text_only, output.photo_only):
        assert [tuple(logits.shape) for logits in head] == [(2, size) for size in TAXONOMY.sizes]
    assert output.gates.shape == (2, len(TAXONOMY), 2)


def test_a_batch_answers_as_its_products_do_alone(checkpoint):
    products = (BOTH, LONG, TEXT, PHOTO, NOTHING)
    together = run(checkpoint, *products)
    for row, product in enumerate(products):
        alone = run(checkpoint, product)
        for logits, expected in zip(together.fused, alone.fused, strict=True):
            torch.testing.assert_close(logits[row], expected[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.embedding[row], alone.embedding[0], atol=1e-5, rtol=1e-4)


def test_a_missing_modality_has_no_weight(checkpoint):
    output = run(checkpoint, TEXT, PHOTO, BOTH)
    assert output.gates[0].tolist() == [[1.0, 0.0]] * len(TAXONOMY)
    assert output.gates[1].tolist() == [[0.0, 1.0]] * len(TAXONOMY)
    assert ((output.gates[2] > 0) & (output.gates[2] < 1)).all()
    assert output.has_text.tolist() == [True, False, True]
    assert output.has_photos.tolist() == [False, True, True]


def test_a_missing_modality_cannot_change_the_answer_through_its_head(checkpoint):
    before = run(checkpoint, TEXT).fused
    with torch.no_grad():
        checkpoint.model.photo_head.weight.add_(5)
    after = run(checkpoint, TEXT).fused
    with torch.no_grad():
        checkpoint.model.photo_head.weight.sub_(5)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)


def test_the_embedding_is_that_of_what_is_there(checkpoint):
    for one, other in ((TEXT, Product("red bag")), (PHOTO, Product(photos=(picture("blue"),)))):
        assert not torch.allclose(*run(checkpoint, one, other).embedding)


def test_a_product_with_neither_text_nor_photos_gets_finite_logits(checkpoint):
    output = run(checkpoint, NOTHING)
    assert all(torch.isfinite(logits).all() for logits in output.fused)


def test_the_order_of_the_photos_does_not_matter(checkpoint):
    photos = (picture("red"), picture("blue"), picture("green"))
    one, other = (run(checkpoint, Product("shirt", photos=order)) for order in (photos, photos[::-1]))
    for logits, expected in zip(one.fused, other.fused, strict=True):
        torch.testing.assert_close(logits, expected)


def test_a_photo_changes_the_answer(checkpoint):
    red, blue = (
        run(checkpoint, Product(photos=(picture("red"),))),
        run(checkpoint, Product(photos=(picture("blue"),))),
    )
    assert not torch.allclose(red.fused[0], blue.fused[0])


def test_with_one_modality_the_fused_answer_is_that_of_the_other(checkpoint):
    output = run(checkpoint, TEXT, PHOTO)
    for fused, text, photos in zip(output.fused, output.text_only, output.photo_only, strict=True):
        torch.testing.assert_close(fused[0], text[0])
        torch.testing.assert_close(fused[1], photos[1])


def test_a_large_batch_of_texts_of_all_lengths_answers_as_its_products_do_alone(checkpoint):
    words = ["red", "green", "blue", "black", "white", "shirt", "shoe", "bag", "watch", "dress"]
    products = [Product(" ".join(words[: n % 10])) for n in range(2 * CPU_ROWS + 3)]
    together = run(checkpoint, *products)
    for row, product in enumerate(products):
        torch.testing.assert_close(
            together.text_only[0][row], run(checkpoint, product).text_only[0][0], atol=1e-5, rtol=1e-4
        )


def test_the_lexicon_tells_the_order_of_words_and_ignores_padding():
    torch.manual_seed(0)
    lexicon = Lexicon(1000, values=4)
    torch.nn.init.normal_(lexicon.head.weight)
    ids = torch.tensor([[5, 6, 7, 0], [6, 5, 7, 0], [5, 6, 7, 9]])
    mask = torch.tensor([[True, True, True, False]] * 3)
    with torch.no_grad():
        first, reordered, padded = lexicon(ids, mask)
        alone = lexicon(ids[:1, :3], mask[:1, :3])[0]
    torch.testing.assert_close(first, padded)
    torch.testing.assert_close(first, alone)
    assert not torch.allclose(first, reordered)


def test_the_lexicon_speaks_where_there_is_text_and_only_once_it_has_learned():
    torch.manual_seed(0)
    tagger = FusionTagger(FusionConfig(text_config(), PHOTO_CONFIG, (3, 2, 3), width=16, lexicon=50)).eval()
    batch = collate([tiny_checkpoint().preprocessor(product) for product in (TEXT, PHOTO)])
    with torch.no_grad():
        before = tagger(batch)
        assert not tagger.embed(batch).words.any()
        tagger.lexicon.head.bias.fill_(4.0)
        after = tagger(batch)
        assert not tagger.embed(batch).words[1].any()
    torch.testing.assert_close(after.text_only[0][0], before.text_only[0][0] + WORDS_WEIGHT * 4)
    torch.testing.assert_close(after.fused[0][0], before.fused[0][0] + WORDS_WEIGHT * 4)
    torch.testing.assert_close(after.fused[0][1], before.fused[0][1])


def test_a_batch_is_padded_to_what_a_processor_takes_at_a_time_where_that_is_near():
    lengths = {1: 1, 7: 7, 8: 16, 15: 16, 16: 16, 17: 17, 23: 23, 24: 32, 96: 96}
    assert {tokens: even(tokens) for tokens in lengths} == lengths
    assert sorted(map(even, range(200))) == list(map(even, range(200))), (
        "a part never needs more than the whole"
    )
