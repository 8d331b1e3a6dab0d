"""Gives a WordPiece vocabulary the characters of another script: the usual English one holds 244 Chinese ones and knows
no other.

Pieces that the catalogue does not use and that are rare in general make room, so that the checkpoint does not grow.
Knows no stage and no loop.
"""

import json
from collections.abc import Iterable
from dataclasses import replace

import torch
from tokenizers import Tokenizer

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from training.errors import RecipeError
from training.glossary import Glossary
from training.recipe import VocabularySection

SPECIAL = 104  # the first rows of BERT's vocabularies: padding, the special tokens between unused ones
PUNCTUATION = "、。，！？：；（）【】《》「」“”‘’·—～…￥％＋／－×°"
WORD_EMBEDDINGS = "text_tower.encoder.embeddings.word_embeddings.weight"


def extended(
    model: FusionTagger,
    preprocessor: Preprocessor,
    section: VocabularySection,
    texts: Iterable[str],
    glossary: Glossary | None,
) -> tuple[FusionTagger, Preprocessor]:
    """The model and its preprocessor with the new vocabulary; embeddings of the pieces that stay are kept.

    Raises RecipeError for a tokenizer that is no WordPiece.
    """
    document = json.loads(preprocessor.tokenizer.to_str())
    if document["model"]["type"] != "WordPiece":
        raise RecipeError(
            f"[vocabulary]: only a WordPiece vocabulary can be extended, not {document['model']['type']}"
        )
    old: dict[str, int] = document["model"]["vocab"]
    used = {piece for text in texts for piece in preprocessor.tokenizer.encode(text).ids}
    wanted = characters(section, glossary)
    kept = [
        piece
        for piece, index in sorted(old.items(), key=lambda entry: entry[1])
        if index < SPECIAL
        or index in used
        or piece in wanted  # it may have learned already
        or (index < section.keep and not piece.startswith("[unused"))
    ]
    added = sorted(wanted - set(kept))
    document["model"]["vocab"] = {piece: index for index, piece in enumerate([*kept, *added])}
    tokenizer = Tokenizer.from_str(json.dumps(document))

    state = model.state_dict()
    rows = state[WORD_EMBEDDINGS]
    stay = rows[[old[piece] for piece in kept]]
    state[WORD_EMBEDDINGS] = torch.cat([stay, fresh_rows(added, rows, preprocessor.tokenizer, glossary)])
    text = {**model.config.text, "vocab_size": len(kept) + len(added)}
    config = replace(model.config, text=text)
    if any(old[piece] != index for index, piece in enumerate(kept)):
        # It finds words by their ids, which are others now.
        config = replace(config, lexicon=0)
        state = {name: tensor for name, tensor in state.items() if not name.startswith("lexicon.")}
    grown = FusionTagger(config)
    grown.load_state_dict(state)
    grown.photo_tower.mean.copy_(model.photo_tower.mean)
    grown.photo_tower.std.copy_(model.photo_tower.std)
    return grown, Preprocessor(preprocessor.config, tokenizer)


def characters(section: VocabularySection, glossary: Glossary | None) -> set[str]:
    """Single-character pieces: those of a character set in full, and those that the glossary needs."""
    found = set(PUNCTUATION) | set(glossary.characters if glossary is not None else ())
    if section.characters == "gb2312":
        # Rows 16 to 87 of GB 2312-1980: 6,763 characters, which cover all but the rarest names.
        codes = (bytes((high, low)) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
        found |= set(b"".join(codes).decode("gb2312", errors="ignore"))
    return found


def fresh_rows(
    added: list[str], rows: torch.Tensor, tokenizer: Tokenizer, glossary: Glossary | None
) -> torch.Tensor:
    """Embeddings of the added characters, (added, D): the mean of the pieces of what the glossary says they stand for,
    and near the mean of all where it says nothing.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(added), rows.shape[1], generator=generator) * rows.std() * 0.5
    position = {character: index for index, character in enumerate(added)}
    total, count = torch.zeros_like(noise), torch.zeros(len(added), 1)
    for phrase, wordings in meanings(glossary):
        meaning = rows[tokenizer.encode(phrase, add_special_tokens=False).ids].mean(dim=0)
        for character in {char for wording in wordings for char in wording} & position.keys():
            total[position[character]] += meaning
            count[position[character]] += 1
    return torch.where(count > 0, total / count.clamp(min=1), rows.mean(dim=0)) + noise


def meanings(glossary: Glossary | None) -> list[tuple[str, tuple[str, ...]]]:
    if glossary is None:
        return []
    values = [entry for by in glossary.values.values() for entry in by.items()]
    return [*values, *glossary.words.items()]
