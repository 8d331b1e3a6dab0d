"""A glossary: the wordings in another language of a taxonomy's values and of the other words of titles.

    [values.ATTRIBUTE]    "Navy Blue" = ["藏青色", "海军蓝"]     what may be said of a value, the most usual first
    [held_out.ATTRIBUTE]  the same, kept from every training: what a test of unseen wordings measures
    [words]               "round neck" = ["圆领"]                words and phrases of titles, in lower case
    [brands]              "nike" = ["耐克"]
    [selling]             phrases = ["新款"]                     what sellers add and what says nothing

Knows no taxonomy and no table: what a glossary does not hold is left as it is.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.errors import RecipeError

Wordings = dict[str, dict[str, tuple[str, ...]]]  # attribute → value → wordings


@dataclass(frozen=True)
class Glossary:
    """`values` and `held_out` by attribute and value; `words` and `brands` by what stands in a title."""

    values: Wordings
    held_out: Wordings
    words: dict[str, tuple[str, ...]]
    brands: dict[str, tuple[str, ...]]
    selling: tuple[str, ...]

    @property
    def characters(self) -> frozenset[str]:
        """Every character beyond ASCII that some wording needs, the held out ones among them."""
        named = [w for table in (self.values, self.held_out) for by in table.values() for w in by.values()]
        wordings = [*named, *self.words.values(), *self.brands.values(), self.selling]
        return frozenset(char for some in wordings for wording in some for char in wording if ord(char) > 127)

    @property
    def telling(self) -> tuple[str, ...]:
        """Every wording of a value: what gives it away in this language."""
        tables = (self.values, self.held_out)
        return tuple(
            wording for table in tables for by in table.values() for some in by.values() for wording in some
        )

    def unseen(self) -> "Glossary":
        """The same with the held out wordings in the place of those that training sees, where there are some."""
        values = {
            attribute: {**by, **self.held_out.get(attribute, {})} for attribute, by in self.values.items()
        }
        return Glossary(values, {}, self.words, self.brands, self.selling)


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
    )
