"""The two encoders: a BERT for the text, the visual half of an open_clip model for the photos; and beside the BERT a
classifier of exact words.

Both are built from configuration alone; `backbones.py` is the one place that fetches pretrained weights.
Legend: B products, P photos, T tokens, D width of a tower.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from models.prefix import Prefix, attend_to

# open_clip builds whole CLIP models only; this text half is as small as it allows and is thrown away at once.
SMALLEST_TEXT_HALF = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


# Rows of one length class that a CPU encodes together: eight fill it, and more rows only pad each other.
CPU_ROWS = 8
# Numbers that a processor takes at a time. Those left over at the end of a row are taken one by one, so that attention
# over 96 tokens is quicker than over 88.
LANES = 16


class TextTower(nn.Module):
    """A BERT-family encoder; the embedding is the mean over the text's tokens (Reimers & Gurevych 2019)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # heavy: paid when a tower is built, not on import

        settings = dict(config)
        prefix_tokens = settings.pop("prefix_tokens", 0)
        self.encoder = AutoModel.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings), **keywords(config["model_type"])
        )
        self.width: int = self.encoder.config.hidden_size
        self.prefix: nn.Module | None = Prefix(prefix_tokens, self.encoder.config) if prefix_tokens else None

    def forward(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) ids and a bool (B, T) mask to (B, D). Rows without any token give zeros."""
        if token_ids.device.type == "cpu" and len(token_ids) > CPU_ROWS:
            return self.by_length(token_ids, type_ids, mask)
        return self.encode(token_ids, type_ids, mask)

    def by_length(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """The same, the rows sorted and each handful cut to its own longest: a CPU pays for every padded token."""
        lengths, order = mask.sum(dim=1).sort()
        chunks = [
            self.encode(token_ids[rows, :longest], type_ids[rows, :longest], mask[rows, :longest])
            for rows, longest in zip(
                order.split(CPU_ROWS),
                (even(int(part[-1].clamp(min=1))) for part in lengths.split(CPU_ROWS)),
                strict=True,
            )
        ]
        return torch.cat(chunks)[order.argsort()]

    def encode(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) to (B, D): the mean over the tokens."""
        states = self.states(token_ids, type_ids, mask)
        weights = mask.to(states.dtype).unsqueeze(-1)  # (B, T, 1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    def states(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D): every token in its context."""
        inputs = {"input_ids": token_ids, "attention_mask": mask}
        if "token_type_ids" in self.encoder.forward.__code__.co_varnames:
            inputs["token_type_ids"] = type_ids
        if self.prefix is not None:
            inputs = attend_to(self.prefix(), inputs, self.encoder.config)
        states: Tensor = self.encoder(**inputs).last_hidden_state
        return states


def even(tokens: int) -> int:
    """The length that texts of so many tokens are padded to: the same, or a little more where that takes less time. It
    never falls as they get longer, so that a part of a batch needs no more than the whole.
    """
    left_over = tokens % LANES
    return tokens if left_over < LANES // 2 else tokens - left_over + LANES


def most_tokens(config: dict[str, Any], wanted: int) -> int:
    """As many of the wanted tokens as an encoder of this configuration has positions for, also when they are made
    even; some encoders begin to count at their padding's position and have fewer than they say.
    """
    positions = config.get("max_position_embeddings")
    if positions is None:
        return wanted
    return min(wanted, positions if positions < LANES else positions - positions % LANES)


class Encoding(nn.Module):
    """The text tower without its batching, as a module of its own: only those can be traced. (B, T) to (B, D)."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        return self.tower.encode(token_ids, type_ids, mask)


class Lexicon(nn.Module):
    """What the exact words say by themselves: a linear classifier of every token and every pair of neighbours.

    A mean over BERT's states smears single words: on colours a bag of words beats a frozen encoder. Here a word and a
    pair keep a vector of their own, hashed into one table (hashing trick, Weinberger et al. 2009); the answer stands
    beside the encoder's (wide & deep, Cheng et al. 2016).
    """

    width = 128

    def __init__(self, rows: int, values: int) -> None:
        super().__init__()
        self.rows = rows
        self.table = nn.Embedding(rows, self.width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.norm = nn.LayerNorm(self.width)
        self.head = nn.Linear(self.width, values)
        nn.init.zeros_(self.head.weight)  # says nothing until it has learned
        nn.init.zeros_(self.head.bias)

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) ids and a bool (B, T) mask to logits (B, W). Rows without any token give one and the same answer."""
        words = self.table(self.rows_of_words(token_ids))  # (B, T, D)
        total = (words * mask.unsqueeze(-1)).sum(dim=1)
        pairs = self.table(self.rows_of_pairs(token_ids))  # (B, T - 1, D)
        total = total + (pairs * (mask[:, :-1] & mask[:, 1:]).unsqueeze(-1)).sum(dim=1)
        logits: Tensor = self.head(self.norm(total))
        return logits

    # Odd factors far from each other: an id, its pairs and the pair the other way round rarely share a row.

    def rows_of_words(self, token_ids: Tensor) -> Tensor:
        """(..., T) ids to the table's row of each."""
        return token_ids * 31 % self.rows

    def rows_of_pairs(self, token_ids: Tensor) -> Tensor:
        """(..., T) ids to the table's row of each with its right neighbour, (..., T - 1)."""
        return (token_ids[..., :-1] * 7919 + token_ids[..., 1:] * 104729) % self.rows


class PhotoTower(nn.Module):
    """The visual half of an open_clip model: `config` is its `embed_dim` and `vision_cfg`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        import_libraries()
        import open_clip

        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        clip = open_clip.CLIP(
            config["embed_dim"], vision, SMALLEST_TEXT_HALF, quick_gelu=config.get("quick_gelu", False)
        )
        # Convolutions of a CPU and of tensor cores want channels last; other layers do not mind.
        self.visual = clip.visual.to(memory_format=torch.channels_last)
        self.width: int = config["embed_dim"]
        self.register_normalising()

    def register_normalising(self) -> None:
        """Changes nothing until `normalise_with`; not among the weights: `preprocess.json` has it."""
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
        features: Tensor = self.visual(self.normalised(photos).contiguous(memory_format=torch.channels_last))
        return features

    def normalised(self, photos: Tensor) -> Tensor:
        """uint8 to pixels as the visual half wants them, both (P, 3, S, S)."""
        return (photos.to(self.mean.dtype) - self.mean) / self.std


def import_libraries() -> None:
    """What towers are built with, which takes seconds: paid when the first is built, unless it was paid before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # open_clip and timm warn about their own imports
        import open_clip  # noqa: F401
        import transformers.modeling_utils

    # Into the log of the process, and not past it in a form of their own.
    transformers.logging.disable_default_handler()
    transformers.logging.enable_propagation()
    transformers.logging.set_verbosity_error()  # tracing reads what it warns of as unset


def keywords(model_type: str) -> dict[str, Any]:
    """BERT's pooler is trained for next-sentence prediction and unused here."""
    return {"add_pooling_layer": False} if model_type in {"bert", "roberta", "xlm-roberta"} else {}
