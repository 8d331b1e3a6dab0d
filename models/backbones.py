"""The one place that fetches pretrained towers; everything else builds networks from configuration alone.

Text: a Hugging Face model name or a folder with `config.json`, weights and a fast tokenizer. Photo: an
open_clip model name with a pretrained tag, or an open_clip model configuration with a weights file.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Sequence
from torch import Tensor

from models.errors import BackboneUnavailable
from models.fusion import FusionConfig, FusionTagger
from models.preprocessing import Preprocessing
from models.taxonomy import Taxonomy
from models.towers import most_tokens

SPECIAL = re.compile(r"\[.*\]|<.*>")  # a token's name, which no text is cut into: [CLS], <S>


@dataclass(frozen=True)
class Backbones:
    """Where both towers come from. `photo_weights` empty: the towers of `photo` as open_clip publishes them.

    `photo` is an open_clip name (`ViT-B-32`) with `photo_pretrained`, its tag, or the path of a model
    configuration (`*.json`) with `photo_weights`, a safetensors file of the visual half.
    """

    text: str
    photo: str
    photo_pretrained: str = ""
    photo_weights: str = ""


def from_backbones(
    backbones: Backbones,
    taxonomy: Taxonomy,
    width: int,
    dropout: float,
    max_tokens: int,
    max_photos: int,
) -> tuple[FusionTagger, Preprocessing, Tokenizer]:
    """A tagger whose towers are pretrained and whose heads are fresh; it has no lexicon yet.

    Raises BackboneUnavailable, naming the setting, where a tower cannot be had.
    """
    text_config, text_weights, tokenizer = fetch_text(backbones.text)
    photo_config, photo_weights, preprocess = fetch_photo(backbones)
    config = FusionConfig(text_config, photo_config, tuple(taxonomy.sizes), width, dropout)
    model = FusionTagger(config)
    model.text_tower.encoder.load_state_dict(text_weights, strict=True)
    fresh = model.photo_tower.visual.load_state_dict(photo_weights, strict=False)
    # Only the projection of a network that was no CLIP before may start fresh.
    wrong = [key for key in (*fresh.missing_keys, *fresh.unexpected_keys) if not key.startswith("head.")]
    if wrong:
        raise BackboneUnavailable(
            f"backbones.photo_weights does not fit backbones.photo: {', '.join(wrong[:5])}"
        )
    preprocessing = Preprocessing(
        photo_size=preprocess["size"],
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        max_tokens=most_tokens(text_config, max_tokens),
        max_photos=max_photos,
    )
    model.photo_tower.normalise_with(preprocessing.mean, preprocessing.std)
    return model, preprocessing, tokenizer


def fetch_text(name: str) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    """Configuration, encoder weights and tokenizer of a BERT-family model."""
    from transformers import AutoModel, AutoTokenizer

    from models.towers import keywords

    try:
        encoder = AutoModel.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError) as error:
        raise BackboneUnavailable(
            f"no text tower at {name!r}: set backbones.text to a Hugging Face name that this machine can reach, "
            f"or to a folder that holds the model ({first_line(error)})"
        ) from error
    config = encoder.config.to_diff_dict()
    config["model_type"] = encoder.config.model_type
    weights = encoder.state_dict()
    if keywords(config["model_type"]):
        weights = {key: value for key, value in weights.items() if not key.startswith("pooler.")}
    return config, weights, in_the_case_of_its_vocabulary(tokenizer.backend_tokenizer)


def in_the_case_of_its_vocabulary(tokenizer: Tokenizer) -> Tokenizer:
    """In place: lower case where the vocabulary knows no other. A Chinese BERT was published with such a vocabulary and
    a tokenizer that keeps capitals: every Latin word that begins with one, as most brands do, was unknown to it.
    """
    pieces = (piece for piece in tokenizer.get_vocab() if not SPECIAL.fullmatch(piece))
    keeps = tokenizer.normalizer is None or tokenizer.normalizer.normalize_str("A") == "A"
    if keeps and not any(piece != piece.lower() for piece in pieces):
        kept = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = Sequence([*kept, Lowercase()])
    return tokenizer


def fetch_photo(backbones: Backbones) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Configuration and weights of the visual half of an open_clip model, and its preprocessing."""
    if backbones.photo_weights:
        return read_photo(Path(backbones.photo), Path(backbones.photo_weights))
    import open_clip

    config = open_clip.get_model_config(backbones.photo)
    if config is None:
        raise BackboneUnavailable(
            f"open_clip knows no model {backbones.photo!r}: set backbones.photo to one of its list_models()"
        )
    try:
        clip = open_clip.create_model(backbones.photo, pretrained=backbones.photo_pretrained, device="cpu")
    except (OSError, RuntimeError, ValueError) as error:
        raise BackboneUnavailable(
            f"no photo tower {backbones.photo!r} with weights {backbones.photo_pretrained!r}: set "
            "backbones.photo_pretrained to a tag that this machine can reach, or backbones.photo to a "
            f"configuration file and backbones.photo_weights to its weights ({first_line(error)})"
        ) from error
    published = clip.visual.preprocess_cfg
    size = published["size"]
    preprocess = {
        "size": size if isinstance(size, int) else size[0],
        "mean": published["mean"],
        "std": published["std"],
    }
    photo = {
        "embed_dim": config["embed_dim"],
        "vision_cfg": config["vision_cfg"],
        "quick_gelu": config.get("quick_gelu", False),
    }
    return photo, clip.visual.state_dict(), preprocess


def read_photo(config: Path, weights: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """The same from an open_clip model configuration and a safetensors file."""
    try:
        document = json.loads(config.read_text(encoding="utf-8"))
        tensors = load_file(weights)
    except (OSError, json.JSONDecodeError) as error:
        raise BackboneUnavailable(
            f"the photo tower cannot be read: check backbones.photo and backbones.photo_weights ({error})"
        ) from error
    photo = {key: document[key] for key in ("embed_dim", "vision_cfg")}
    preprocess = {"size": document["vision_cfg"]["image_size"], **document["preprocess_cfg"]}
    return photo, {key: value.to(torch.float32) for key, value in tensors.items()}, preprocess


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
