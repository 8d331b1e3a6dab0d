"""Which names a tagger looks for in titles (`models.names`), and how much each weighs.

The names are the taxonomy's own and the glossary's. A name weighs the less the more products of its value there are to
learn from, and the less the more often it stands in titles of products that are something else.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.checkpoint import Checkpoint
from models.fusion import FusionTagger
from models.names import LONGEST, NamedValues, key_of, moved
from models.preprocessing import Preprocessor
from models.taxonomy import Attribute, Taxonomy
from training.data import MISSING, targets_of
from training.glossary import Glossary
from training.heads import places
from training.recipe import NamesSection
from training.table import Row

# Titles that every attribute starts with, and the right ones among them: unknown names are right three times of four.
PRIOR_TITLES, PRIOR_RIGHT = 4.0, 3.0
# As many titles of its own weigh as much for a value as all that is known of its attribute.
SHRINKAGE = 5.0
LOOKED_AT = 1024  # titles at a time
BEGINNINGS = ("▁", "Ġ")


def name_values(
    model: FusionTagger,
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    rows: Sequence[Row],
    glossary: Glossary | None,
    section: NamesSection,
    old: Checkpoint | None,
) -> None:
    """In place: the model's names are those of this taxonomy and, of values that it shares with an old checkpoint,
    those that one looks for; all weighed by these rows. A weight of 0 means none.
    """
    kept = {} if old is None else kept_names(old, taxonomy, preprocessor.tokenizer)
    names = names_of(taxonomy, preprocessor.tokenizer, glossary, kept) if section.weight else {}
    model.config = replace(model.config, names=len(names))
    model.names = None
    if not names:
        return
    continues = continuing(preprocessor.tokenizer, model.config.text["vocab_size"])
    model.names = NamedValues(len(names), len(continues), model.config.sizes)
    model.names.look_for(names, continues)
    counts = torch.zeros(3, model.names.width)
    # A part of the rows at a time: of a large table with many values all would take gigabytes.
    for start in range(0, len(rows), LOOKED_AT):
        part = rows[start : start + LOOKED_AT]
        counts += counted(found_in(model.names, preprocessor, part), is_value(part, taxonomy))
    by_attribute = counts.split(list(taxonomy.sizes), dim=1)  # (3, V) each
    weights = torch.cat([weighed(its, section) for its in by_attribute])
    model.names.weights = weights[model.names.values]


def counted(found: Tensor, right: Tensor) -> Tensor:
    """Of each value (3, W): titles with a label that name it, the right ones among them, and products that have it;
    from bool (B, W) where a name was found, and (B, W) whether it is the value, NaN where no label says.
    """
    named = found & ~right.isnan()
    return torch.stack([named.sum(dim=0), (named & (right == 1)).sum(dim=0), right.nansum(dim=0)])


def weighed(counts: Tensor, section: NamesSection) -> Tensor:
    """(V,) weights of one attribute's values, from what `counted` gives of them, (3, V)."""
    titles, hits, products = counts
    usually = (hits.sum() + PRIOR_RIGHT) / (titles.sum() + PRIOR_TITLES)
    precision = (hits + SHRINKAGE * usually) / (titles + SHRINKAGE)
    # A name that is wrong as often as right says nothing.
    trust = (2 * precision - 1).clamp(min=0)
    return section.weight * trust / (1 + products / section.rare)


def kept_names(old: Checkpoint, taxonomy: Taxonomy, tokenizer: Tokenizer) -> dict[int, int]:
    """By key the row of its value in this taxonomy; none where the tokenizer has other tokens now."""
    names, tokens = old.model.names, old.preprocessor.tokenizer.get_vocab()
    if names is None or not tokens.items() <= tokenizer.get_vocab().items():
        return {}
    rows, attributes = places(taxonomy), {attribute.name: index for index, attribute in enumerate(taxonomy)}
    before = {attribute.name: index for index, attribute in enumerate(old.taxonomy)}
    of_row = list(places(old.taxonomy))  # (attribute, multiple, value)
    places_now = [(key, of_row[row]) for key, row in zip(names.keys, names.values.tolist(), strict=True)]
    return {
        int(moved(key, torch.tensor(attributes[value[0]] - before[value[0]]))): rows[value]
        for key, value in places_now
        if value in rows
    }


def names_of(
    taxonomy: Taxonomy, tokenizer: Tokenizer, glossary: Glossary | None, kept: Mapping[int, int]
) -> dict[int, int]:
    """By key the row of its value: every wording of every value, and those that are kept. One that two values of an
    attribute share names neither.
    """
    names = {key: {row} for key, row in kept.items()}
    unknown = unknown_token(tokenizer)
    row = 0
    for index, attribute in enumerate(taxonomy):
        for value in attribute.values:
            for wording in wordings_of(attribute, value, glossary):
                ids = tuple(tokenizer.encode(wording, add_special_tokens=False).ids)
                if 0 < len(ids) <= LONGEST and unknown not in ids:
                    names.setdefault(key_of(ids, index), set()).add(row)
            row += 1
    return {key: min(rows) for key, rows in names.items() if len(rows) == 1}


def unknown_token(tokenizer: Tokenizer) -> int | None:
    """The id of what the vocabulary does not hold; a name with it would be found everywhere."""
    model = json.loads(tokenizer.to_str())["model"]
    if "unk_id" in model:
        return model["unk_id"]
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None


def wordings_of(attribute: Attribute, value: str, glossary: Glossary | None) -> Iterable[str]:
    yield from in_both_numbers(value)
    if glossary is not None:
        yield from glossary.values.get(attribute.name, {}).get(value, ())


def in_both_numbers(value: str) -> tuple[str, ...]:
    """An English name as a catalogue and as a title would have it: `Scarves`, `scarf`."""
    if value.endswith("ies"):
        return value, value[:-3] + "y"
    if value.endswith("ves"):
        return value, value[:-3] + "f", value[:-1]
    if value.endswith(("ches", "shes", "sses", "xes")):
        return value, value[:-2]
    if value.endswith("s") and not value.endswith("ss"):
        return value, value[:-1]
    if value.endswith(("ch", "sh", "ss", "x")):
        return value, value + "es"
    if value.endswith("y") and value[-2:-1] not in "aeiou":
        return value, value[:-1] + "ies"
    if value.endswith("f"):
        return value, value + "s", value[:-1] + "ves"
    return value, value + "s"


def continuing(tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """bool (vocabulary,): the tokens that go on with a word, by the sign of WordPiece or, where words have a sign at
    their beginning (SentencePiece, byte-level BPE), the words without it.
    """
    pieces = tokenizer.get_vocab()
    marked = [index for piece, index in pieces.items() if piece.startswith("##")]
    if any(piece.startswith(BEGINNINGS) for piece in pieces):
        marked = [
            index
            for piece, index in pieces.items()
            if piece[:1].isalnum() and not piece.startswith(BEGINNINGS)
        ]
    continues = torch.zeros(vocabulary, dtype=torch.bool)
    continues[torch.tensor([index for index in marked if index < vocabulary], dtype=torch.int64)] = True
    return continues


@torch.inference_mode()
def found_in(names: NamedValues, preprocessor: Preprocessor, rows: Sequence[Row]) -> Tensor:
    """bool (B, W): the values whose names stand where the network looks for them: in titles, or in all of the text
    where the tokenizer does not tell the two apart.
    """
    tokens = [preprocessor.tokens(row.title, row.description) for row in rows]
    ids = torch.zeros(len(tokens), max(1, *(len(some) for some, _ in tokens)), dtype=torch.int64)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, (some, types) in enumerate(tokens):
        ids[row, : len(some)] = torch.from_numpy(some)
        mask[row, : len(some)] = torch.from_numpy(types == 0)  # as `FusionTagger.embed` has it
    found: Tensor = names(ids, mask) > 0
    return found


def is_value(rows: Sequence[Row], taxonomy: Taxonomy) -> Tensor:
    """float (B, W): 1 for a row's values, 0 for others, NaN for the values of an attribute without a label."""
    parts = []
    for attribute, target in zip(taxonomy, targets_of(rows, taxonomy), strict=True):
        if attribute.multiple:
            parts.append(target)
            continue
        known = torch.where(target >= 0, target, 0)
        one_hot = torch.nn.functional.one_hot(known, len(attribute.values)).float()
        # A value that the taxonomy lacks is a label as well: whatever is found is wrong.
        one_hot[target < 0] = 0.0
        one_hot[target == MISSING] = float("nan")
        parts.append(one_hot)
    return torch.cat(parts, dim=1)
