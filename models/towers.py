"""The two encoders: a BERT for the text, the visual half of an open_clip model for the photos.

Both are built from configuration alone; `backbones.py` is the one place that fetches pretrained weights.
Legend: B products, P photos, T tokens, D width of a tower.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

# open_clip builds whole CLIP models only; this text half is as small as it allows and is thrown away at once.
SMALLEST_TEXT_HALF = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


class TextTower(nn.Module):
    """A BERT-family encoder; the embedding is the mean over the text's tokens (Reimers & Gurevych 2019)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # heavy: paid when a tower is built, not on import

        settings = dict(config)
        self.encoder = AutoModel.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings), **keywords(config["model_type"])
        )
        self.width: int = self.encoder.config.hidden_size

    def forward(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) ids and a bool (B, T) mask to (B, D). Rows without any token give zeros."""
        inputs = {"input_ids": token_ids, "attention_mask": mask}
        if "token_type_ids" in self.encoder.forward.__code__.co_varnames:
            inputs["token_type_ids"] = type_ids
        states = self.encoder(**inputs).last_hidden_state  # (B, T, D)
        weights = mask.to(states.dtype).unsqueeze(-1)  # (B, T, 1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class PhotoTower(nn.Module):
    """The visual half of an open_clip model: `config` is its `embed_dim` and `vision_cfg`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # open_clip and timm warn about their own imports
            import open_clip

        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        clip = open_clip.CLIP(
            config["embed_dim"], vision, SMALLEST_TEXT_HALF, quick_gelu=config.get("quick_gelu", False)
        )
        self.visual = clip.visual
        self.width: int = config["embed_dim"]
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.ones(1, 3, 1, 1), persistent=False)

    def normalise_with(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Per channel, on the 0..255 scale of the uint8 input: normalising on the device copies a quarter
        of the bytes.
        """
        self.mean.copy_(torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.std.copy_(torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, photos: Tensor) -> Tensor:
        """uint8 (P, 3, S, S) to (P, D), before the normalising to unit length that CLIP's loss does."""
        pixels = (photos.to(self.mean.dtype) - self.mean) / self.std
        features: Tensor = self.visual(pixels.contiguous(memory_format=torch.channels_last))
        return features


def keywords(model_type: str) -> dict[str, Any]:
    """BERT's pooler is trained for next-sentence prediction and unused here."""
    return {"add_pooling_layer": False} if model_type in {"bert", "roberta", "xlm-roberta"} else {}
