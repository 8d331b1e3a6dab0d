"""Pretrained towers load from folders, and where there is no hub the message names the setting to change."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from models import BackboneUnavailable
from models.backbones import Backbones, from_backbones, in_the_case_of_its_vocabulary
from models.checkpoint import Checkpoint, load, save
from models.preprocessing import Preprocessor
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint, write_backbones


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def build(**backbones):
    return from_backbones(
        Backbones(**backbones), TAXONOMY, width=16, dropout=0.1, max_tokens=128, max_photos=4
    )


def test_towers_come_from_folders_with_their_weights(folders):
    model, preprocessing, tokenizer = build(**folders)
    expected = tiny_checkpoint().model.photo_tower.visual.state_dict()
    for name, tensor in model.photo_tower.visual.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert preprocessing.photo_size == 16
    assert preprocessing.max_tokens == 32  # the text tower's positions, under the recipe's 128
    assert tokenizer.encode("red shirt").tokens == ["[CLS]", "red", "shirt", "[SEP]"]


def test_a_tagger_from_backbones_survives_a_checkpoint(folders, tmp_path):
    model, preprocessing, tokenizer = build(**folders)
    tiny = tiny_checkpoint()
    made = Checkpoint(
        "made", model, TAXONOMY, Preprocessor(preprocessing, tokenizer), tiny.calibration, {}, "card"
    )
    save(made, tmp_path / "made")
    loaded = load(tmp_path / "made")
    for name, tensor in loaded.model.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_an_unreachable_text_tower_names_its_setting(folders):
    with pytest.raises(BackboneUnavailable, match=r"set backbones\.text"):
        build(**{**folders, "text": "nobody/no-such-bert"})


def test_an_unknown_photo_tower_names_its_setting(folders):
    with pytest.raises(BackboneUnavailable, match=r"set backbones\.photo"):
        build(text=folders["text"], photo="ViT-Z-1")


def test_an_unreachable_photo_tower_names_its_setting(folders):
    with pytest.raises(BackboneUnavailable, match=r"set backbones\.photo_pretrained"):
        build(text=folders["text"], photo="ViT-B-32", photo_pretrained="laion2b_s34b_b79k")


def test_weights_of_another_network_are_refused(folders, tmp_path):
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(BackboneUnavailable, match=r"photo_weights does not fit"):
        build(**{**folders, "photo_weights": str(tmp_path / "other.safetensors")})


@pytest.mark.parametrize(
    ("pieces", "lowercase", "cut"),
    [
        # As a Chinese BERT was published.
        (("nike", "##s", "鞋"), False, ["nike", "鞋"]),
        (("nike", "##s", "鞋"), True, ["nike", "鞋"]),
        # A vocabulary that tells capitals apart.
        (("nike", "Nike", "鞋"), False, ["Nike", "鞋"]),
        (("nike", "N", "鞋"), False, ["[UNK]", "鞋"]),
    ],
)
def test_capitals_are_lowered_for_a_vocabulary_that_has_none(pieces, lowercase, cut):
    vocabulary = {piece: n for n, piece in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<S>", *pieces))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    assert in_the_case_of_its_vocabulary(tokenizer).encode("Nike鞋").tokens == cut


def test_a_tokenizer_without_a_normalizer_gets_one():
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "nike": 1}, unk_token="[UNK]"))
    assert in_the_case_of_its_vocabulary(tokenizer).encode("NIKE").tokens == ["nike"]
