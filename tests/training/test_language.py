"""Masked-language pretraining on a catalogue's texts."""

import numpy as np
import pytest
import torch

from tests.tiny_tagger import tiny_checkpoint
from training.data import MISSING
from training.errors import DataError, RecipeError
from training.language import Guesser, Texts, padded
from training.table import Row

ROWS = [
    Row(str(n), f"new {('red', 'blue')[n % 2]} shirt with cotton", "soft wool", (), str(n), {})
    for n in range(400)
]


@pytest.fixture
def preprocessor():
    return tiny_checkpoint().preprocessor


def test_a_share_of_the_words_is_asked_for_and_nearly_all_of_those_are_hidden(preprocessor):
    texts = Texts(ROWS, preprocessor, 0.3, seed=0)
    asked = hidden = shown = words = 0
    for index, row in enumerate(ROWS):
        token_ids, _, targets = texts[index]
        original, _ = preprocessor.tokens(row.title, row.description)
        question = targets != MISSING
        assert (targets[question] == original[question]).all()
        assert (token_ids[~question] == original[~question]).all()
        asked += question.sum()
        words += len(original) - 3  # [CLS] and two [SEP]
        hidden += (token_ids[question] == texts.mask_id).sum()
        shown += (token_ids[question] == original[question]).sum()
    assert asked / words == pytest.approx(0.3, abs=0.05)
    assert hidden / asked == pytest.approx(0.8, abs=0.05)
    assert shown / asked == pytest.approx(0.1, abs=0.05)


def test_special_tokens_are_never_asked_for_and_a_short_text_always_asks(preprocessor):
    texts = Texts([Row("1", "red", "", (), "1", {})], preprocessor, 0.01, seed=0)
    _, _, targets = texts[0]
    assert (targets != MISSING).tolist() == [False, True, False]


def test_epochs_mask_anew_and_a_seed_repeats_them(preprocessor):
    one, other = (Texts(ROWS, preprocessor, 0.3, seed=3) for _ in range(2))
    first = [one[index][2] for index in range(20)]
    assert all(np.array_equal(a, other[index][2]) for index, a in enumerate(first))
    one.set_epoch(1)
    assert not all(np.array_equal(a, one[index][2]) for index, a in enumerate(first))


def test_the_guesser_gives_logits_for_what_is_asked(preprocessor):
    model = tiny_checkpoint().model
    texts = Texts(ROWS, preprocessor, 0.3, seed=0)
    batch = padded([texts[0], texts[1]])
    guesser = Guesser(model)
    logits = guesser(batch)
    assert logits.shape == (int((batch.targets != MISSING).sum()), texts.vocabulary)
    logits.sum().backward()
    assert model.text_tower.encoder.get_input_embeddings().weight.grad is not None
    assert torch.equal(batch.token_mask.sum(dim=1), torch.tensor([len(texts[0][0]), len(texts[1][0])]))


def test_a_catalogue_without_texts_is_refused(preprocessor):
    with pytest.raises(DataError, match="needs texts"):
        Texts([Row("1", "", "", (), "1", {})], preprocessor, 0.15, seed=0)


def test_a_vocabulary_without_a_mask_is_refused(preprocessor):
    preprocessor.tokenizer = preprocessor.tokenizer.from_str(
        preprocessor.tokenizer.to_str().replace("[MASK]", "[OTHER]")
    )
    with pytest.raises(RecipeError, match="no \\[MASK\\]"):
        Texts(ROWS, preprocessor, 0.15, seed=0)


def test_what_fills_a_short_text_up_is_neither_read_nor_asked_for(preprocessor):
    texts = Texts([ROWS[0], Row("1", "red", "", (), "1", {})], preprocessor, 0.3, seed=0)
    (long, _, _), (short, _, short_targets) = texts[0], texts[1]
    assert len(short) < len(long)
    batch = padded([texts[0], texts[1]])
    assert batch.token_mask[1].tolist() == [n < len(short) for n in range(len(long))]
    assert batch.targets[1].tolist() == [*short_targets, *[MISSING] * (len(long) - len(short))]
