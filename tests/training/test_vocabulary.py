"""A vocabulary that learns another script: what stays, what is new, and that the old words still mean the same."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from models.fusion import FusionTagger, collate
from models.preprocessing import Preprocessor
from models.product import Product
from tests.tiny_tagger import tiny_checkpoint
from training.errors import RecipeError
from training.glossary import Glossary
from training.recipe import VocabularySection
from training.vocabulary import SPECIAL, WORD_EMBEDDINGS, extended

WORDS = ("red", "shirt", "##s", "rare", "used")
GLOSSARY = Glossary({"colour": {"red": ("红色",)}}, {}, {}, {}, ())


def wordpiece() -> Tokenizer:
    """As BERT's are: special tokens between unused ones, then pieces by how frequent they are."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    pieces = [special.get(n, f"[unused{n}]") for n in range(SPECIAL)] + [*WORDS, "[unused999]"]
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return tokenizer


@pytest.fixture
def before():
    checkpoint = tiny_checkpoint()
    tokenizer = wordpiece()
    config = checkpoint.model.config
    text = {**config.text, "vocab_size": tokenizer.get_vocab_size()}
    torch.manual_seed(0)
    model = FusionTagger(replace(config, text=text)).eval()
    return model, Preprocessor(checkpoint.preprocessor.config, tokenizer)


def grown(before, keep=SPECIAL + 3, glossary=GLOSSARY, characters="glossary"):
    section = VocabularySection(keep=keep, characters=characters)
    model, preprocessor = extended(*before, section, ["used"], glossary)
    return model.eval(), preprocessor


def test_characters_of_the_glossary_are_known_afterwards(before):
    _, preprocessor = grown(before)
    unknown = preprocessor.tokenizer.token_to_id("[UNK]")
    assert unknown in before[1].tokens("红色", "")[0]
    assert unknown not in preprocessor.tokens("红色", "")[0]


def test_frequent_and_used_pieces_stay_and_the_others_make_room(before):
    _, preprocessor = grown(before)
    vocabulary = preprocessor.tokenizer.get_vocab()
    assert {"red", "shirt", "##s", "used"} <= set(vocabulary)
    assert not {"rare", "[unused999]"} & set(vocabulary)
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_old_words_mean_what_they_meant(before):
    after = grown(before)
    with torch.inference_mode():
        old, new = (
            model(collate([preprocessor(Product("red shirts used"))]))
            for model, preprocessor in (before, after)
        )
    for one, other in zip(old.text_only, new.text_only, strict=True):
        torch.testing.assert_close(one, other)


def test_a_character_starts_near_what_the_glossary_says_it_stands_for(before):
    model, preprocessor = grown(before)
    rows = model.state_dict()[WORD_EMBEDDINGS]
    of = preprocessor.tokenizer.token_to_id
    distance = torch.cdist(rows[of("红")].unsqueeze(0), rows[[of("red"), of("shirt"), of("used")]])[0]
    assert distance.argmin() == 0


def test_a_whole_character_set_can_be_had(before):
    _, preprocessor = grown(before, characters="gb2312")
    unknown = preprocessor.tokenizer.token_to_id("[UNK]")
    assert unknown not in preprocessor.tokens("高性价比蓝牙耳机，纯棉圆领！", "")[0]


def test_another_kind_of_tokenizer_is_refused(before):
    checkpoint = tiny_checkpoint()
    with pytest.raises(RecipeError, match="WordPiece"):
        extended(checkpoint.model, checkpoint.preprocessor, VocabularySection(), [], None)


def test_characters_that_have_learned_already_are_kept(before):
    model, preprocessor = grown(before)
    index = preprocessor.tokenizer.token_to_id("红")
    with torch.no_grad():
        model.text_tower.encoder.get_input_embeddings().weight[index] = 7.0
    again, later = grown((model, preprocessor))
    row = again.state_dict()[WORD_EMBEDDINGS][later.tokenizer.token_to_id("红")]
    assert (row == 7).all()


def test_exact_words_are_forgotten_where_their_ids_are_others_now(before):
    model, preprocessor = before
    model = FusionTagger(replace(model.config, lexicon=64))
    assert grown((model, preprocessor))[0].lexicon is None
    kept, _ = extended(
        model, preprocessor, VocabularySection(keep=10_000, characters="glossary"), WORDS, None
    )
    assert kept.lexicon is not None, "only the last piece made room"


def test_photos_are_seen_as_before(before):
    before[0].photo_tower.normalise_with((0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
    photos = torch.arange(3 * 16 * 16).view(1, 3, 16, 16).to(torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(grown(before)[0].photo_tower(photos), before[0].photo_tower(photos))
