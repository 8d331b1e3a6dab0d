"""The attributes that a checkpoint tags and the values each may take.

The taxonomy travels inside the checkpoint: its order is the order of the heads' outputs, so it is never
rebuilt from data at serving time. An attribute may have a scope: `heel_height` applies when `kind` is `Shoe`
or `Boot`, and is offered nowhere else; scopes may be chained. It knows no network and no files but its own
JSON form.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from models.errors import CheckpointError


@dataclass(frozen=True)
class Scope:
    """The products an attribute applies to: those that carry one of `values` for another attribute, its
    parent.
    """

    attribute: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"a scope within {self.attribute!r} needs values, each named once")


@dataclass(frozen=True)
class Attribute:
    """One question about a product, such as `base_colour`.

    `multiple` attributes take any number of values at once (sigmoid); the others exactly one (softmax).
    Without a scope in `applies_when` the question can be asked of every product.
    """

    name: str
    values: tuple[str, ...]
    multiple: bool = False
    applies_when: Scope | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an attribute needs a name")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"attribute {self.name!r} names a value twice")
        if len(self.values) < (1 if self.multiple else 2):
            raise ValueError(f"attribute {self.name!r} needs at least two values to choose from")


@dataclass(frozen=True)
class Taxonomy:
    """The ordered attributes of one checkpoint."""

    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        names = [attribute.name for attribute in self.attributes]
        if not names or len(set(names)) != len(names):
            raise ValueError("a taxonomy needs attributes, each named once")
        by_name = dict(zip(names, self.attributes, strict=True))
        for attribute in self.attributes:
            check_scope(attribute, by_name)
        parents_first(self.scopes)

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)

    @property
    def sizes(self) -> list[int]:
        """V of every attribute, in order."""
        return [len(attribute.values) for attribute in self.attributes]

    @property
    def scopes(self) -> dict[str, Scope | None]:
        """The scope of each attribute by name, in order."""
        return {attribute.name: attribute.applies_when for attribute in self.attributes}

    def to_dict(self) -> dict[str, Any]:
        return {"attributes": [entry(attribute) for attribute in self.attributes]}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Taxonomy":
        """Raises CheckpointError when the document is not a taxonomy."""
        try:
            return cls(tuple(attribute_of(entry) for entry in document["attributes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"taxonomy.json is not a taxonomy: {error}") from error


def check_scope(attribute: Attribute, by_name: Mapping[str, Attribute]) -> None:
    """Raises ValueError where the scope names an attribute or a value that the taxonomy does not hold."""
    scope = attribute.applies_when
    if scope is None:
        return
    if scope.attribute not in by_name:
        raise ValueError(
            f"attribute {attribute.name!r} applies within {scope.attribute!r}, which is no attribute here"
        )
    for value in scope.values:
        if value not in by_name[scope.attribute].values:
            raise ValueError(
                f"attribute {attribute.name!r} applies when {scope.attribute!r} is {value!r}, "
                "which is none of its values"
            )


def parents_first(scopes: Mapping[str, Scope | None]) -> list[str]:
    """The names, each after the attribute that its scope lies within. Raises ValueError for a circle."""
    graph = {name: () if scope is None else (scope.attribute,) for name, scope in scopes.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " within ".join(repr(name) for name in reversed(error.args[1]))
        raise ValueError(f"scopes run in a circle: {circle}") from error


def entry(attribute: Attribute) -> dict[str, Any]:
    document = {"name": attribute.name, "multiple": attribute.multiple, "values": list(attribute.values)}
    if attribute.applies_when is not None:
        scope = attribute.applies_when
        document["applies_when"] = {"attribute": scope.attribute, "values": list(scope.values)}
    return document


def attribute_of(document: dict[str, Any]) -> Attribute:
    scope = document.get("applies_when")
    return Attribute(
        document["name"],
        tuple(document["values"]),
        bool(document["multiple"]),
        None if scope is None else Scope(scope["attribute"], tuple(scope["values"])),
    )
