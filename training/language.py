"""Further masked-language pretraining of the text tower on the shop's own texts (Gururangan et al. 2020, "Don't Stop
Pretraining"), before it learns to tag.

BERT's task: guess the words that were masked out (Devlin et al. 2019, section 3.1). The head that guesses is thrown
away afterwards. Legend: B products, T tokens, D width of the tower, M masked tokens, V pieces of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from training.data import MISSING
from training.errors import DataError, RecipeError
from training.loop import Report, Stage
from training.recipe import LanguageSection
from training.stages import Material, freeze, parameter_groups
from training.table import Row

MASK = "[MASK]"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK)
# Of the masked tokens: this share shows the mask, this one another piece, the rest itself (Devlin et al. 2019).
SHOWS_MASK, SHOWS_ANOTHER = 0.8, 0.1


@dataclass(frozen=True)
class Masked:
    """int64 (B, T) ids and segments, bool (B, T) mask, int64 (B, T) targets: MISSING where there is no question."""

    token_ids: Tensor
    type_ids: Tensor
    token_mask: Tensor
    targets: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Masked":
        return Masked(
            *(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self))
        )


class Guesser(nn.Module):
    """The text tower with BERT's masked-language head; the last layer shares the word embeddings."""

    def __init__(self, tagger: FusionTagger) -> None:
        super().__init__()
        self.text_tower = tagger.text_tower
        words = self.text_tower.encoder.get_input_embeddings()
        self.transform = nn.Sequential(
            nn.Linear(self.text_tower.width, words.embedding_dim),
            nn.GELU(),
            nn.LayerNorm(words.embedding_dim),
        )
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))

    def forward(self, batch: Masked) -> Tensor:
        """Logits (M, V) of the tokens in question, in order."""
        states = self.text_tower.states(batch.token_ids, batch.type_ids, batch.token_mask)
        asked = self.transform(states[batch.targets != MISSING])  # (M, D)
        return functional.linear(asked, self.text_tower.encoder.get_input_embeddings().weight, self.bias)


def language_stage(tagger: FusionTagger, section: LanguageSection, material: Material) -> Stage:
    """Titles and descriptions of the rows that have any. Raises RecipeError for a vocabulary without a mask."""
    guesser = Guesser(tagger)
    freeze(guesser.text_tower.encoder, section.text_frozen)
    learning, held_out = (
        Texts(part, material.preprocessor, section.mask_share, material.recipe.train.seed)
        for part in (material.rows, material.validation)
    )

    def loss(network: nn.Module, batch: Masked) -> tuple[Tensor, Report]:
        asked = batch.targets[batch.targets != MISSING]
        # The sum over their number: a batch without a word is a loss of zero, not of nothing.
        return functional.cross_entropy(network(batch), asked, reduction="sum") / max(1, len(asked)), {}

    @torch.inference_mode()
    def validate(network: nn.Module) -> Report:
        """The mean loss and accuracy over the masked tokens of the held-out texts, always the same ones."""
        assert isinstance(network, Guesser)
        losses, right = [], []
        for batch in texts_loader(held_out, section.batch_size, shuffle=False):
            moved = batch.to(network.bias.device)
            asked, logits = moved.targets[moved.targets != MISSING], network(moved)
            losses.append(functional.cross_entropy(logits, asked, reduction="none").cpu())
            right.append((logits.argmax(dim=1) == asked).cpu())
        return {"loss": torch.cat(losses).mean().item(), "accuracy": torch.cat(right).float().mean().item()}

    return Stage(
        name="language",
        network=guesser,
        groups=parameter_groups(
            section, {"text": [guesser.text_tower], "heads": [guesser.transform]}, [guesser.bias]
        ),
        loader=texts_loader(learning, section.batch_size, shuffle=True),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=section,
        stopping=material.stopping("loss"),
    )


class Texts(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """Token ids, segment ids and targets of every text, masked anew in every epoch; a seed repeats them."""

    def __init__(self, rows: Sequence[Row], preprocessor: Preprocessor, mask_share: float, seed: int) -> None:
        self.rows = [row for row in rows if row.title or row.description]
        if not self.rows:
            raise DataError(
                "[language] needs texts, and no product of the training or of the validation part has any"
            )
        tokenizer = preprocessor.tokenizer
        mask = tokenizer.token_to_id(MASK)
        if mask is None:
            raise RecipeError(
                f"[language]: the vocabulary of this text tower has no {MASK}, leave the section out"
            )
        self.mask_id: int = mask
        self.special = [piece for name in SPECIAL if (piece := tokenizer.token_to_id(name)) is not None]
        self.vocabulary = tokenizer.get_vocab_size()
        self.preprocessor, self.mask_share, self.seed, self.epoch = preprocessor, mask_share, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = self.rows[index]
        random = np.random.default_rng((self.seed, self.epoch, index))
        token_ids, type_ids = self.preprocessor.tokens(row.title, row.description)
        words = np.flatnonzero(~np.isin(token_ids, self.special))
        targets = np.full_like(token_ids, MISSING)
        if len(words):  # at least one, or a short title would never ask anything
            count = max(1, round(self.mask_share * len(words)))
            asked = random.choice(words, count, replace=False)
            targets[asked] = token_ids[asked]
            token_ids = token_ids.copy()
            draw = random.random(count)
            token_ids[asked[draw < SHOWS_MASK]] = self.mask_id
            another = asked[(draw >= SHOWS_MASK) & (draw < SHOWS_MASK + SHOWS_ANOTHER)]
            token_ids[another] = random.integers(0, self.vocabulary, len(another))
        return token_ids, type_ids, targets


def texts_loader(texts: Texts, batch_size: int, shuffle: bool) -> DataLoader[Any]:
    return DataLoader(
        texts, batch_size=batch_size, shuffle=shuffle, collate_fn=padded, generator=torch.Generator()
    )


def padded(items: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Masked:
    """Every text to the length of the longest."""
    columns = [[torch.from_numpy(column) for column in columns] for columns in zip(*items, strict=True)]
    ids, types, targets = columns
    mask = [torch.ones(len(text), dtype=torch.bool) for text in ids]
    pad = nn.utils.rnn.pad_sequence
    return Masked(
        token_ids=pad(ids, batch_first=True),
        type_ids=pad(types, batch_first=True),
        token_mask=pad(mask, batch_first=True),
        targets=pad(targets, batch_first=True, padding_value=MISSING),
    )
