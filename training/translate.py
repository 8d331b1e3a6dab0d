"""Titles in the language of a glossary, as sellers write them: translated word for word, or composed anew from what is
known of the product; whole or mixed with the original language.

Every choice comes from the generator passed in, so a run can be repeated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.augment import Rewrite
from training.describe import CJK, Describer, pick
from training.errors import RecipeError
from training.glossary import NO_SENTENCES, Glossary, read_glossary
from training.recipe import TranslateSection
from training.table import Row
from training.telling import stem

Style = Literal["whole", "mixed"]
LONGEST_PHRASE = 4  # words: "free size pack of" and longer do not occur in titles often enough to matter
# How often sellers say a thing in a title, by what their titles of the fashion data hold: nearly always the type,
# the gender and the colour, seldom the usage and the season. Any other attribute is said now and then.
SAID: Mapping[str, float] = {
    "article_type": 0.92,
    "gender": 0.9,
    "base_colour": 0.88,
    "usage": 0.25,
    "season": 0.15,
}
SAID_OTHERWISE = 0.1
TYPES = "article_type"  # the attribute that says what a product is, told last
COMPOSED = 0.5  # of the titles; the others are translated word for word
SAYS_NOTHING = 0.08  # of the composed titles name no value at all
TYPE_ADDED = 0.5  # of the translated titles that do not name the type
UNKNOWN_KEPT = 0.6  # of the words that the glossary lacks, most of them brands and model names
MIXED_KEPT = 0.5  # of the phrases of a mixed title stay as they were
SPACED = 0.35  # of the titles have spaces between their phrases


class Translator:
    """Makes titles of one glossary."""

    def __init__(self, glossary: Glossary) -> None:
        self.glossary = glossary
        self.phrases = phrases_of(glossary)

    def title(
        self,
        title: str,
        values: Mapping[str, Sequence[str]],
        random: np.random.Generator,
        style: Style | None = None,
    ) -> str:
        """A rendering of the title of a product with these values; whole or mixed at random without a style."""
        style = style or ("whole" if random.random() < 0.6 else "mixed")
        make = self.composed if random.random() < COMPOSED else self.translated
        parts = make(title, values, style, random)
        return join(self.with_selling(parts, random), random.random() < SPACED) or title

    def translated(
        self, title: str, values: Mapping[str, Sequence[str]], style: Style, random: np.random.Generator
    ) -> list[str]:
        """Phrase by phrase in the title's own order."""
        parts: list[str] = []
        for phrase, wordings in self.segments(title):
            if not wordings:
                if not parts or style == "mixed" or random.random() < UNKNOWN_KEPT:
                    parts.append(phrase)
            elif style == "mixed" and random.random() < MIXED_KEPT:
                parts.append(phrase)
            else:
                parts.append(pick(wordings, random))
        types = self.wordings(TYPES, values)
        if types and not any(wording in parts for wording in types) and random.random() < TYPE_ADDED:
            parts.append(pick(types, random))
        return parts

    def composed(
        self, title: str, values: Mapping[str, Sequence[str]], style: Style, random: np.random.Generator
    ) -> list[str]:
        """Brand, some of the title's other words and the values in a seller's order: the type comes last."""
        says = random.random() >= SAYS_NOTHING
        said = []
        for attribute in self.glossary.values:
            wordings = self.wordings(attribute, values)
            if says and wordings and random.random() < SAID.get(attribute, SAID_OTHERWISE):
                as_it_was = style == "mixed" and random.random() < MIXED_KEPT
                said.append((attribute, values[attribute][0] if as_it_was else pick(wordings, random)))
        types = [wording for attribute, wording in said if attribute == TYPES]
        others = [wording for attribute, wording in said if attribute != TYPES]
        segments = self.segments(title)
        brand = [pick(w, random) if w and random.random() < 0.5 else phrase for phrase, w in segments[:1]]
        others += [pick(w, random) for _, w in self.neutral(segments[1:]) if random.random() < 0.4]
        random.shuffle(others)
        parts = (brand if random.random() < 0.7 else []) + others
        return parts + types if random.random() < 0.85 else types + parts

    def neutral(self, segments: list[tuple[str, tuple[str, ...]]]) -> Iterable[tuple[str, tuple[str, ...]]]:
        """The known phrases that name no value: what is said of values is decided apart."""
        told = {stem(value) for by in self.glossary.values.values() for value in by}
        return ((p, w) for p, w in segments if w and stem(p) not in told and p.lower() in self.glossary.words)

    def wordings(self, attribute: str, values: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        by = self.glossary.values.get(attribute, {})
        return tuple(wording for value in values.get(attribute, ())[:1] for wording in by.get(value, ()))

    def segments(self, title: str) -> list[tuple[str, tuple[str, ...]]]:
        """The title as its longest known phrases, each with its wordings; () for a word that is not known."""
        words, found, at = title.split(), [], 0
        while at < len(words):
            for count in range(min(LONGEST_PHRASE, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + count])
                wordings = self.phrases.get(key_of(phrase), ())
                if wordings or count == 1:
                    found.append((phrase, wordings))
                    at += count
                    break
        return found

    def with_selling(self, parts: list[str], random: np.random.Generator) -> list[str]:
        """None to two phrases that say nothing, anywhere but inside another phrase."""
        parts = list(parts)
        for _ in range(int(random.integers(0, 3)) if self.glossary.selling else 0):
            parts.insert(int(random.integers(0, len(parts) + 1)), pick(self.glossary.selling, random))
        return parts


def phrases_of(glossary: Glossary) -> dict[str, tuple[str, ...]]:
    """What can stand in a title → its wordings. Values win over words, words over brands."""
    phrases: dict[str, tuple[str, ...]] = {}
    for table in (glossary.brands, glossary.words, *reversed(list(glossary.values.values()))):
        for phrase, wordings in table.items():
            if wordings:
                phrases[key_of(phrase)] = wordings
    return phrases


def key_of(phrase: str) -> str:
    return " ".join(stem(word) for word in phrase.split())


def join(parts: Sequence[str], spaced: bool) -> str:
    """Spaces between all parts, or only where neither neighbour is a character that needs none."""
    text = ""
    for part in parts:
        if text and (spaced or not (CJK.match(text[-1]) or CJK.match(part[:1]))):
            text += " "
        text += part
    return text


def glossary_of(section: TranslateSection) -> Glossary:
    """Raises RecipeError, also where it has no sentences and the section wants descriptions."""
    glossary = read_glossary(Path(section.glossary))
    if section.descriptions and glossary.descriptions == NO_SENTENCES:
        raise RecipeError(
            f"translate.descriptions: {section.glossary} has no sentences, fill its [descriptions]"
        )
    return glossary


def rewriter(section: TranslateSection) -> Rewrite:
    """Renders and describes the section's shares of the products, and leaves the others as they are. Raises
    RecipeError.
    """
    glossary = glossary_of(section)
    translator, describer = Translator(glossary), Describer(glossary)

    def rewrite(
        title: str, description: str, values: Mapping[str, Sequence[str]], random: np.random.Generator
    ) -> tuple[str, str]:
        if random.random() < section.share:
            title = translator.title(title, values, random)
        if not description and random.random() < section.descriptions:
            description = describer.description(title, values, random)
        return title, description

    return rewrite


def rendering(glossary: Glossary, style: Style, seed: int = 0) -> Callable[[Row], Row]:
    """Row → the same with its title in this style, always the same one for a product and a seed: for measuring."""
    translator = Translator(glossary)

    def render(row: Row) -> Row:
        random = np.random.default_rng([seed, *row.id.encode()])
        return replace(row, title=translator.title(row.title, row.values, random, style))

    return render
