"""The network: two towers, a gate for each attribute, and text-only and photo-only heads beside the fused
one.

Concatenating both embeddings can lose to text alone (Rakuten France: 89.87 against 89.93 macro-F1), because a
shared head learns to trust whichever modality is usually right. Here every attribute weighs the modalities
for each product, and the fused answer is a correction on top of the weighted answers of the parts. With one
modality missing the fused answer is the other's own: it cannot fall below it.

It knows nothing of files, taxonomies beyond their sizes, or losses. Legend: B products, P photos of all of
them, T tokens, S side, D width of the fused space, A attributes, V values of one attribute, W all values
together.
"""

import copy
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.names import NamedValues
from models.product import NO_FEATURES, Example
from models.towers import Lexicon, PhotoTower, TextTower, even

# Of the words' own logits beside those of the BERT's head, which they are added to: two experts of one text are
# wrong at different places. Learned together they would be wrong at the same ones, so each learns by itself.
WORDS_WEIGHT = 0.5
TOWERS = ("text_tower", "photo_tower")


@dataclass(frozen=True)
class FusionConfig:
    """Everything the network's shape depends on; `sizes` are the V of each attribute, in taxonomy order.

    `lexicon` is the number of rows of the table of exact words, `names` that of the names of values; 0 for none.
    """

    text: dict[str, Any]
    photo: dict[str, Any]
    sizes: tuple[int, ...]
    width: int = 384
    dropout: float = 0.1
    lexicon: int = 0
    names: int = 0


@dataclass(frozen=True)
class Batch:
    """Products on one device.

    `token_ids`, `type_ids` int64 (B, T); `token_mask` bool (B, T); `photos` uint8 (P, 3, S, S), to run the tower on;
    `seen` float16 (K, D), features of photos that it has run on before; `photo_owner` int64 (P + K,), the row in B that
    each of them belongs to, those of `photos` first. `seen_texts` float16 (S, D), features of texts that the text tower
    need not run on, and `seen_text_rows` int64 (S,), the rows in B that they belong to.
    """

    token_ids: Tensor
    type_ids: Tensor
    token_mask: Tensor
    photos: Tensor
    seen: Tensor
    photo_owner: Tensor
    seen_texts: Tensor
    seen_text_rows: Tensor

    def __len__(self) -> int:
        return len(self.token_ids)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        return Batch(
            *(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self))
        )

    def pin_memory(self) -> "Batch":
        """In page-locked memory, from where a copy to the device overlaps with its work."""
        return Batch(*(getattr(self, field.name).pin_memory() for field in fields(self)))


@dataclass(frozen=True)
class Embedded:
    """Both modalities in the fused space: `text`, `photos` (B, D); in logits (B, W) `words`, what the exact words say
    by themselves, and `named`, what the names in the title add; `has_text`, `has_photos` bool (B,).
    """

    text: Tensor
    photos: Tensor
    words: Tensor
    named: Tensor
    has_text: Tensor
    has_photos: Tensor


@dataclass(frozen=True)
class FusionOutput:
    """Logits of each attribute (B, V); gates (B, A, 2), text first; embedding (B, D) of unit length."""

    fused: tuple[Tensor, ...]
    text_only: tuple[Tensor, ...]
    photo_only: tuple[Tensor, ...]
    gates: Tensor
    embedding: Tensor
    has_text: Tensor
    has_photos: Tensor


def collate(examples: list[Example]) -> Batch:
    """Pads the text with zeros to the longest example or a little more; photos of all products lie in one stack."""
    longest = even(max(1, max(example.tokens for example in examples)))
    token_ids = np.zeros((len(examples), longest), dtype=np.int64)
    type_ids = np.zeros_like(token_ids)
    token_mask = np.zeros(token_ids.shape, dtype=bool)
    for row, example in enumerate(examples):
        token_ids[row, : example.tokens] = example.token_ids
        type_ids[row, : example.tokens] = example.type_ids
        token_mask[row, : example.tokens] = True
    rows = np.arange(len(examples))
    owner = np.concatenate(
        [
            np.repeat(rows, [len(example.photos) for example in examples]),
            np.repeat(rows, [len(example.seen) for example in examples]),
        ]
    )
    photos = np.concatenate([example.photos for example in examples])
    seen = [example.seen for example in examples if len(example.seen)] or [NO_FEATURES]
    seen_text_rows = [row for row, example in enumerate(examples) if len(example.seen_text)]
    seen_texts = [examples[row].seen_text for row in seen_text_rows]
    return Batch(
        token_ids=torch.from_numpy(token_ids),
        type_ids=torch.from_numpy(type_ids),
        token_mask=torch.from_numpy(token_mask),
        photos=torch.from_numpy(photos),
        seen=torch.from_numpy(np.concatenate(seen)),
        photo_owner=torch.from_numpy(owner),
        seen_texts=torch.from_numpy(np.stack(seen_texts) if seen_texts else NO_FEATURES),
        seen_text_rows=torch.tensor(seen_text_rows, dtype=torch.int64),
    )


class FusionTagger(nn.Module):
    """From a batch of products to logits for every attribute, fused and from each modality alone."""

    def __init__(self, config: FusionConfig, towers: tuple[TextTower, PhotoTower] | None = None) -> None:
        """With towers of its own, untrained, where it is given none."""
        super().__init__()
        self.config = config
        self.text_tower, self.photo_tower = towers or (TextTower(config.text), PhotoTower(config.photo))
        width, values, attributes = config.width, sum(config.sizes), len(config.sizes)
        self.lexicon = Lexicon(config.lexicon, values) if config.lexicon else None
        self.names = (
            NamedValues(config.names, config.text["vocab_size"], config.sizes) if config.names else None
        )
        self.text_projection = projection(self.text_tower.width, width, config.dropout)
        self.photo_projection = projection(self.photo_tower.width, width, config.dropout)
        self.absent_text = nn.Parameter(torch.randn(width) * 0.02)
        self.absent_photos = nn.Parameter(torch.randn(width) * 0.02)
        self.text_head = nn.Linear(width, values)
        self.photo_head = nn.Linear(width, values)
        self.gate = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, attributes * 2))
        self.fused_norm = nn.LayerNorm(width)
        self.fused_head = nn.Linear(width, values)

    def forward(self, batch: Batch) -> FusionOutput:
        return self.fuse(self.embed(batch))

    def embed(self, batch: Batch) -> Embedded:
        """Runs each tower on what is there; a missing modality becomes its learned "absent" embedding."""
        features = with_seen(self.photo_features(batch), batch)
        return self.join(self.text_features(batch), features, *of_text_and_owners(batch))

    def text_features(self, batch: Batch) -> Tensor:
        """(B, D): what the text tower makes of the texts, or has made of those that it has seen before."""
        new = batch.token_mask.any(dim=1)
        features = self.absent_text.new_zeros(len(batch), self.text_tower.width)
        if len(batch.seen_text_rows):
            new[batch.seen_text_rows] = False
            features[batch.seen_text_rows] = batch.seen_texts.to(features.dtype)
        elif bool(new.any()):
            return self.text_tower(batch.token_ids, batch.type_ids, batch.token_mask)
        if bool(new.any()):
            texts = self.text_tower(batch.token_ids[new], batch.type_ids[new], batch.token_mask[new])
            features[new] = texts.to(features.dtype)
        return features

    def photo_features(self, batch: Batch) -> Tensor:
        """(P, D): what the photo tower makes of the photos that it has not seen before."""
        if not len(batch.photos):
            return self.absent_photos.new_zeros(0, self.photo_tower.width)
        return self.photo_tower(batch.photos)

    def join(
        self,
        texts: Tensor,
        features: Tensor,
        token_ids: Tensor,
        type_ids: Tensor,
        token_mask: Tensor,
        photo_owner: Tensor,
    ) -> Embedded:
        """What `embed` gives, of the features of the texts (B, D) and of all photos (P + K, D) and the rest of a batch.

        Whatever is there, the same operations: `models.traced` makes them a graph.
        """
        rows = token_ids.shape[0]
        has_text = token_mask.any(dim=1)  # (B,)
        has_photos = torch.zeros(rows, dtype=torch.bool, device=photo_owner.device)
        has_photos[photo_owner] = True  # (B,)
        text = torch.where(has_text.unsqueeze(1), self.text_projection(texts), self.absent_text)  # (B, D)
        words = text.new_zeros(rows, sum(self.config.sizes))  # (B, W)
        named = words
        if self.lexicon is not None:
            said = self.lexicon(token_ids, token_mask).to(words.dtype)
            words = torch.where(has_text.unsqueeze(1), said, words)
        if self.names is not None:
            # The title alone, the first segment: a description also says what a product goes with.
            title = token_mask & (type_ids == 0)
            named = self.names(token_ids, title).to(words.dtype)
        shown = self.photo_projection(mean_by_owner(features, photo_owner, rows))
        photos = torch.where(has_photos.unsqueeze(1), shown, self.absent_photos)  # (B, D)
        return Embedded(text, photos, words, named, has_text, has_photos)

    def after_towers(self) -> "FusionTagger":
        """The same layers without the towers, for `join` and `fuse`, which need none."""
        layers = copy.copy(self)
        # nn.Module's own record of its parts, of which a copy has the same one.
        layers._modules = {name: part for name, part in self._modules.items() if name not in TOWERS}
        return layers

    def fuse(self, embedded: Embedded) -> FusionOutput:
        """Gates weigh what is present only: with one modality missing the other has weight one, and no
        correction.
        """
        sizes = list(self.config.sizes)
        text = self.text_head(embedded.text) + WORDS_WEIGHT * embedded.words  # (B, W)
        photo_only = self.photo_head(embedded.photos)  # (B, W)
        gates = self.gates(embedded)  # (B, A, 2)
        both = torch.stack([embedded.text, embedded.photos], dim=1)  # (B, 2, D)
        mixed = self.fused_norm(gates @ both)  # (B, A, D)
        weight, bias = self.fused_head.weight.split(sizes), self.fused_head.bias.split(sizes)
        both_there = (embedded.has_text & embedded.has_photos).to(mixed.dtype).unsqueeze(1)  # (B, 1)
        # A name says the same whatever the photos weigh, so no gate stands before it.
        parts = zip(*(part.split(sizes, dim=1) for part in (text, photo_only, embedded.named)), strict=True)
        fused = tuple(
            both_there * nn.functional.linear(mixed[:, a], weight[a], bias[a])
            + gates[:, a, :1] * said
            + gates[:, a, 1:] * shown
            + named
            for a, (said, shown, named) in enumerate(parts)
        )
        embedding = nn.functional.normalize(mixed.mean(dim=1), dim=-1)
        return FusionOutput(
            fused,
            (text + embedded.named).split(sizes, dim=1),
            photo_only.split(sizes, dim=1),
            gates,
            embedding,
            embedded.has_text,
            embedded.has_photos,
        )

    def gates(self, embedded: Embedded) -> Tensor:
        """(B, A, 2): a softmax over the modalities that are there, for each attribute."""
        scores = self.gate(torch.cat([embedded.text, embedded.photos], dim=1))
        scores = scores.view(-1, len(self.config.sizes), 2)
        present = torch.stack([embedded.has_text, embedded.has_photos], dim=1).unsqueeze(1)  # (B, 1, 2)
        # A product with neither modality keeps both: the answer is then the prior of the absent embeddings.
        present = present | ~present.any(dim=2, keepdim=True)
        return scores.masked_fill(~present, float("-inf")).softmax(dim=2)


def projection(width_in: int, width_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width_in),
        nn.Linear(width_in, width_out),
        nn.GELU(),
        nn.LayerNorm(width_out),
        nn.Dropout(dropout),
    )


def with_seen(features: Tensor, batch: Batch) -> Tensor:
    """(P + K, D): the features (P, D) of the photos that the tower ran on, and after them those of the others."""
    return torch.cat([features, batch.seen.to(features.dtype)]) if len(batch.seen) else features


def of_text_and_owners(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `FusionTagger.join` takes of a batch besides features."""
    return batch.token_ids, batch.type_ids, batch.token_mask, batch.photo_owner


def mean_by_owner(features: Tensor, owner: Tensor, count: int) -> Tensor:
    """(P, D) photo features to the mean of each product, (B, D); zeros where a product has no photo."""
    total = features.new_zeros(count, features.shape[1]).index_add(0, owner, features)
    photos = features.new_zeros(count).index_add(0, owner, features.new_ones(owner.shape[0]))
    return total / photos.clamp(min=1).unsqueeze(1)
