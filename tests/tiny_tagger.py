"""A tagger small enough for tests: one layer in each tower, a vocabulary of whole words, random but fixed
weights.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from models.calibration import Calibration
from models.checkpoint import Checkpoint
from models.fusion import FusionConfig, FusionTagger
from models.preprocessing import Preprocessing, Preprocessor
from models.taxonomy import Attribute, Taxonomy

WORDS = [
    "red",
    "green",
    "blue",
    "black",
    "white",
    "shirt",
    "shoe",
    "bag",
    "watch",
    "dress",
    "men",
    "women",
    "cotton",
    "linen",
    "wool",
    "soft",
    "and",
    "the",
    "with",
    "new",
]
TAXONOMY = Taxonomy(
    (
        Attribute("colour", ("red", "green", "blue")),
        Attribute("kind", ("shirt", "shoe")),
        Attribute("material", ("cotton", "linen", "wool"), multiple=True),
    )
)
PHOTO_CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16},
}


def tiny_tokenizer() -> Tokenizer:
    vocabulary = {
        word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "[MASK]"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def text_config() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": len(WORDS) + 5,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
    }


def tiny_model(taxonomy: Taxonomy = TAXONOMY) -> FusionTagger:
    torch.manual_seed(0)
    return FusionTagger(FusionConfig(text_config(), PHOTO_CONFIG, tuple(taxonomy.sizes), width=16)).eval()


def tiny_checkpoint(taxonomy: Taxonomy = TAXONOMY) -> Checkpoint:
    preprocessing = Preprocessing(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), max_tokens=16, max_photos=3)
    model = tiny_model(taxonomy)
    model.photo_tower.normalise_with(preprocessing.mean, preprocessing.std)
    return Checkpoint(
        name="tiny",
        model=model,
        taxonomy=taxonomy,
        preprocessor=Preprocessor(preprocessing, tiny_tokenizer()),
        calibration=Calibration.uncalibrated(taxonomy, 0.95),
        metrics={"rows": {}},
        card="# tiny\n",
    )


def picture(colour: str = "red", size: tuple[int, int] = (30, 40), file_format: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, file_format)
    return stream.getvalue()


def write_backbones(folder: Path) -> dict[str, str]:
    """A BERT folder and an open_clip configuration with weights, as `[backbones]` of a recipe names them."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    settings = {key: value for key, value in text_config().items() if key != "model_type"}
    BertModel(BertConfig(**settings)).save_pretrained(folder / "text")
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder / "text")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (folder / "photo.json").write_text(json.dumps({**PHOTO_CONFIG, "preprocess_cfg": preprocess}))
    visual = tiny_model().photo_tower.visual
    save_file(
        {key: value.contiguous() for key, value in visual.state_dict().items()}, folder / "photo.safetensors"
    )
    return {
        "text": str(folder / "text"),
        "photo": str(folder / "photo.json"),
        "photo_weights": str(folder / "photo.safetensors"),
    }
