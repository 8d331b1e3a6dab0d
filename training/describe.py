"""Descriptions of a glossary's sentences, as shops add them to titles: most of what they say is not of the product.

A model that was trained on titles alone takes the words of a washing instruction, or of what else to wear, for words of
the title. Every choice comes from the generator passed in, so a run can be repeated.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from training.glossary import Glossary
from training.table import Row

CJK = re.compile(r"[\u3400-\u9fff\uff00-\uffef]")
SLOT = re.compile(r"\{(~?)([^{}]+)\}")
MOST = 6  # sentences: more do not fit into the tokens that a text may have
OTHER_LANGUAGE = 0.1  # of the descriptions are not in the language of their title


class Describer:
    """Makes descriptions of one glossary."""

    def __init__(self, glossary: Glossary) -> None:
        self.glossary = glossary
        self.words = {"word": glossary.words, "brand": glossary.brands}

    def description(
        self, title: str, values: Mapping[str, Sequence[str]], random: np.random.Generator
    ) -> str:
        """One to six sentences, as a rule in the language of the title: `translated` where it has a CJK character.
        Those that cannot be filled are left out, and may be all.
        """
        translated = bool(CJK.search(title)) != (random.random() < OTHER_LANGUAGE)
        sentences = self.glossary.descriptions
        chosen = sentences.translated if translated else sentences.original
        drawn = random.permutation(len(chosen))[: random.integers(1, MOST + 1)]
        filled = (self.filled(chosen[place], values, translated, random) for place in drawn)
        return " ".join(sentence for sentence in filled if sentence)

    def filled(
        self,
        sentence: str,
        values: Mapping[str, Sequence[str]],
        translated: bool,
        random: np.random.Generator,
    ) -> str:
        """The sentence with its slots filled; empty where the product or the glossary lacks what one asks for."""
        found = [self.said(slot[1], slot[2], values, translated, random) for slot in SLOT.finditer(sentence)]
        filling = iter(found)
        return SLOT.sub(lambda _: next(filling), sentence) if all(found) else ""

    def said(
        self,
        other: str,
        name: str,
        values: Mapping[str, Sequence[str]],
        translated: bool,
        random: np.random.Generator,
    ) -> str:
        """What stands in a slot; empty where nothing can."""
        wordings = self.words[name] if name in self.words else self.glossary.values.get(name, {})
        own = name not in self.words and not other
        among = [value for value in (values.get(name, ())[:1] if own else wordings) if wordings.get(value)]
        if not among:
            return ""
        value = pick(among, random)
        return pick(wordings[value], random) if translated else value


def described(rows: Sequence[Row], glossary: Glossary) -> list[Row]:
    """The rows, those that have a title alone with a description: always the same one for a product."""
    describer = Describer(glossary)

    def one(row: Row) -> Row:
        if row.description or not row.title:
            return row
        random = np.random.default_rng([*row.id.encode()])
        return replace(row, description=describer.description(row.title, row.values, random))

    return [one(row) for row in rows]


def pick(wordings: Sequence[str], random: np.random.Generator) -> str:
    return wordings[int(random.integers(len(wordings)))]
