"""A glossary: the wordings in another language of a taxonomy's values and of the other words of titles.

    [values.ATTRIBUTE]    "Navy Blue" = ["藏青色", "海军蓝"]     what may be said of a value, the most usual first
    [held_out.ATTRIBUTE]  the same, kept from every training: what a test of unseen wordings measures
    [words]               "round neck" = ["圆领"]                words and phrases of titles, in lower case
    [brands]              "nike" = ["耐克"]
    [selling]             phrases = ["新款"]                     what sellers add and what says nothing
    [descriptions]        original = ["Hand wash."]             sentences of descriptions, in the language of the titles
                          translated = ["建议手洗。"]             and in that of the wordings, for titles in Chinese
    [held_out_descriptions]  the same, kept from every training

In a sentence `{colour}` stands for the product's own value of that attribute, `{~colour}` for any value of it, `{word}`
and `{brand}` for any of [words] and [brands]. A sentence is left out where that is nothing.

Knows no taxonomy and no table: what a glossary does not hold is left as it is.
"""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.errors import RecipeError

Wordings = dict[str, dict[str, tuple[str, ...]]]  # attribute → value → wordings


class Sentences(BaseModel):
    """Of descriptions, in the language of the titles and in that of the wordings."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    original: tuple[str, ...] = ()
    translated: tuple[str, ...] = ()


NO_SENTENCES = Sentences()


@dataclass(frozen=True)
class Glossary:
    """`values` and `held_out` by attribute and value; `words` and `brands` by what stands in a title."""

    values: Wordings
    held_out: Wordings
    words: dict[str, tuple[str, ...]]
    brands: dict[str, tuple[str, ...]]
    selling: tuple[str, ...]
    descriptions: Sentences = NO_SENTENCES
    held_out_descriptions: Sentences = NO_SENTENCES

    @property
    def characters(self) -> frozenset[str]:
        """Every character beyond ASCII that some wording needs, the held out ones among them."""
        named = [w for table in (self.values, self.held_out) for by in table.values() for w in by.values()]
        sentences = (self.descriptions.translated, self.held_out_descriptions.translated)
        wordings = [*named, *self.words.values(), *self.brands.values(), self.selling, *sentences]
        return frozenset(char for some in wordings for wording in some for char in wording if ord(char) > 127)

    @property
    def telling(self) -> tuple[str, ...]:
        """Every wording of a value: what gives it away in this language."""
        tables = (self.values, self.held_out)
        return tuple(
            wording for table in tables for by in table.values() for some in by.values() for wording in some
        )

    def unseen(self) -> "Glossary":
        """The same with the held out wordings in the place of those that training sees, where there are some, and the
        held out sentences.
        """
        values = {
            attribute: {**by, **self.held_out.get(attribute, {})} for attribute, by in self.values.items()
        }
        return replace(
            self,
            values=values,
            held_out={},
            descriptions=self.held_out_descriptions,
            held_out_descriptions=NO_SENTENCES,
        )


class Selling(BaseModel):
    model_config = ConfigDict(extra="forbid")
    phrases: tuple[str, ...] = ()


class Document(BaseModel):
    """The form of the file."""

    model_config = ConfigDict(extra="forbid")
    values: Wordings
    held_out: Wordings = {}
    words: dict[str, tuple[str, ...]] = {}
    brands: dict[str, tuple[str, ...]] = {}
    selling: Selling = Field(default_factory=Selling)
    descriptions: Sentences = NO_SENTENCES
    held_out_descriptions: Sentences = NO_SENTENCES


def read_glossary(path: Path) -> Glossary:
    """Raises RecipeError for a file that is no glossary."""
    try:
        document = Document.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(f"{path} is not a readable glossary: {error}") from error
    return Glossary(
        document.values,
        document.held_out,
        {word.lower(): wordings for word, wordings in document.words.items()},
        {brand.lower(): wordings for brand, wordings in document.brands.items()},
        document.selling.phrases,
        document.descriptions,
        document.held_out_descriptions,
    )
