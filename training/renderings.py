"""The test rows as a glossary renders them: what a checkpoint is measured on that was trained with one.

In its language, whole and mixed, or as they are with a description; with the wordings that training saw and with those
that were held out from it, with photos and without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.taxonomy import Taxonomy
from training.conditions import Condition, shown
from training.describe import described
from training.errors import RecipeError
from training.glossary import Glossary, read_glossary
from training.table import Row
from training.translate import Style, rendering

Shown = Style | Literal["described"]


@dataclass(frozen=True)
class Rendering:
    style: Shown
    unseen: bool
    condition: Condition

    @property
    def in_words(self) -> str:
        wordings = "wordings held out" if self.unseen else "wordings of the training"
        photos = ", without photos" if self.condition == "without_photos" else ""
        titles = "described products" if self.style == "described" else f"{self.style} titles"
        return f"{titles}, {wordings}{photos}"


RENDERINGS = {
    "whole": Rendering("whole", False, "as_is"),
    "whole_unseen": Rendering("whole", True, "as_is"),
    "mixed_unseen": Rendering("mixed", True, "as_is"),
    "whole_unseen_without_photos": Rendering("whole", True, "without_photos"),
    "mixed_unseen_without_photos": Rendering("mixed", True, "without_photos"),
    "described_unseen": Rendering("described", True, "as_is"),
    "described_unseen_without_photos": Rendering("described", True, "without_photos"),
}


def rendered(rows: Sequence[Row], glossary: Glossary, taxonomy: Taxonomy) -> Iterator[tuple[str, list[Row]]]:
    """Each rendering's name and rows; without those that describe where the glossary has nothing held out for them."""
    for name, way in RENDERINGS.items():
        if way.style == "described" and not glossary.held_out_descriptions.original:
            continue
        yield name, shown(in_style(rows, glossary, way.style, way.unseen), way.condition, taxonomy)


def in_style(rows: Sequence[Row], glossary: Glossary, style: Shown, unseen: bool) -> list[Row]:
    """The rows with their titles rendered, or described, always alike; `unseen` takes the wordings that no training
    sees. Raises RecipeError where a glossary has no sentences to describe with.
    """
    glossary = glossary.unseen() if unseen else glossary
    if style != "described":
        render = rendering(glossary, style)
        return [render(row) for row in rows]
    if not glossary.descriptions.original:
        section = "held_out_descriptions" if unseen else "descriptions"
        raise RecipeError(f"the glossary has no sentences of this kind: fill `original` of its [{section}]")
    return described(rows, glossary)


def by_glossary(
    rows: Sequence[Row], file: Path | None, style: Shown, unseen: bool
) -> tuple[list[Row], tuple[str, ...]]:
    """As `--glossary`, `--style` and `--unseen` ask: the rows, and the wordings that tell their values to a reader of
    the glossary's language, for masking. Without a file the rows as they are. Raises RecipeError.
    """
    if file is None:
        return list(rows), ()
    glossary = read_glossary(file)
    return in_style(rows, glossary, style, unseen), glossary.telling
