"""The attributes that a checkpoint tags and the values each may take.

The taxonomy travels inside the checkpoint: its order is the order of the heads' outputs, so it is never
rebuilt from data at serving time. It knows no network and no files but its own JSON form.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from models.errors import CheckpointError


@dataclass(frozen=True)
class Attribute:
    """One question about a product, such as `base_colour`.

    `multiple` attributes take any number of values at once (sigmoid); the others exactly one (softmax).
    """

    name: str
    values: tuple[str, ...]
    multiple: bool = False

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

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)

    @property
    def sizes(self) -> list[int]:
        """V of every attribute, in order."""
        return [len(attribute.values) for attribute in self.attributes]

    def to_dict(self) -> dict[str, Any]:
        return {
            "attributes": [
                {"name": attribute.name, "multiple": attribute.multiple, "values": list(attribute.values)}
                for attribute in self.attributes
            ]
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Taxonomy":
        """Raises CheckpointError when the document is not a taxonomy."""
        try:
            return cls(
                tuple(
                    Attribute(entry["name"], tuple(entry["values"]), bool(entry["multiple"]))
                    for entry in document["attributes"]
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"taxonomy.json is not a taxonomy: {error}") from error
