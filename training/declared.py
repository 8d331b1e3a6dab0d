"""What a shop fixes about its attributes beforehand, in a taxonomy file; all else comes from the table.

The file has the form of a checkpoint's `taxonomy.json`, of which all but the names may be left out:

    {"attributes": [{"name": "material", "multiple": true},
                    {"name": "heel_height", "applies_when": {"attribute": "kind", "values": ["Shoe", "Boot"]}},
                    {"name": "size", "values": ["S", "M", "L"]}]}
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from models.taxonomy import Attribute, Scope, parents_first
from training.cells import plain
from training.errors import RecipeError
from training.recipe import Section

# As the cells of a table are read.
Name = Annotated[str, AfterValidator(plain), Field(min_length=1)]


class DeclaredScope(Section):
    attribute: Name
    values: Annotated[tuple[Name, ...], Field(min_length=1)]


class DeclaredAttribute(Section):
    """`values` empty: those of the table; `multiple` None: as the table and the recipe say."""

    name: Name
    values: tuple[Name, ...] = ()
    multiple: bool | None = None
    applies_when: DeclaredScope | None = None


class Declared(Section):
    attributes: tuple[DeclaredAttribute, ...] = ()

    @property
    def names(self) -> list[str]:
        """All attributes that the file speaks of, the parents of scopes among them."""
        return list(dict.fromkeys([*(entry.name for entry in self.attributes), *self.scope_values]))

    @property
    def multiple(self) -> list[str]:
        return [entry.name for entry in self.attributes if entry.multiple]

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The lists of values that the file fixes, by attribute."""
        return {entry.name: entry.values for entry in self.attributes if entry.values}

    @property
    def scopes(self) -> dict[str, Scope]:
        return {
            entry.name: Scope(entry.applies_when.attribute, entry.applies_when.values)
            for entry in self.attributes
            if entry.applies_when is not None
        }

    @property
    def scope_values(self) -> dict[str, list[str]]:
        """The values that scopes name, by the attribute that they belong to."""
        found: dict[str, list[str]] = {}
        for scope in self.scopes.values():
            found.setdefault(scope.attribute, []).extend(scope.values)
        return {name: list(dict.fromkeys(values)) for name, values in found.items()}

    def only(self, names: Sequence[str]) -> "Declared":
        """What it says of these attributes. Raises RecipeError where a scope needs another one."""
        kept = Declared(attributes=tuple(entry for entry in self.attributes if entry.name in names))
        for name, scope in kept.scopes.items():
            if scope.attribute not in names:
                raise RecipeError(
                    f"attribute {name!r} applies within {scope.attribute!r}: name {scope.attribute!r} "
                    "among the attributes too"
                )
        return kept


def read_declared(path: Path) -> Declared:
    """Raises RecipeError for a file that is no taxonomy, with the place in it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        declared = Declared.model_validate(document)
        names = [entry.name for entry in declared.attributes]
        if len(set(names)) != len(names):
            raise ValueError("an attribute is named twice")
        for entry in declared.attributes:
            if entry.values:
                Attribute(entry.name, entry.values, bool(entry.multiple))
        for name, values in declared.values.items():
            for value in declared.scope_values.get(name, ()):
                if value not in values:
                    raise ValueError(f"a scope names {value!r} of {name!r}, which is none of its values")
        parents_first(declared.scopes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {where}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not a taxonomy file: {error}") from error
    return declared
