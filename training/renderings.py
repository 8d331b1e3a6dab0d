"""The test rows in the language of a glossary: what a checkpoint is measured on that was trained with one.

With the wordings that training saw and with those that were held out from it, whole and mixed, with photos and without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.taxonomy import Taxonomy
from training.conditions import Condition, shown
from training.glossary import Glossary, read_glossary
from training.table import Row
from training.translate import Style, rendering


@dataclass(frozen=True)
class Rendering:
    style: Style
    unseen: bool
    condition: Condition

    @property
    def in_words(self) -> str:
        wordings = "wordings held out" if self.unseen else "wordings of the training"
        photos = ", without photos" if self.condition == "without_photos" else ""
        return f"{self.style} titles, {wordings}{photos}"


RENDERINGS = {
    "whole": Rendering("whole", False, "as_is"),
    "whole_unseen": Rendering("whole", True, "as_is"),
    "mixed_unseen": Rendering("mixed", True, "as_is"),
    "whole_unseen_without_photos": Rendering("whole", True, "without_photos"),
    "mixed_unseen_without_photos": Rendering("mixed", True, "without_photos"),
}


def rendered(rows: Sequence[Row], glossary: Glossary, taxonomy: Taxonomy) -> Iterator[tuple[str, list[Row]]]:
    """Each rendering's name and rows."""
    for name, way in RENDERINGS.items():
        yield name, shown(in_style(rows, glossary, way.style, way.unseen), way.condition, taxonomy)


def in_style(rows: Sequence[Row], glossary: Glossary, style: Style, unseen: bool) -> list[Row]:
    """The rows with their titles rendered, always alike; `unseen` takes the wordings that no training sees."""
    render = rendering(glossary.unseen() if unseen else glossary, style)
    return [render(row) for row in rows]


def by_glossary(
    rows: Sequence[Row], file: Path | None, style: Style, unseen: bool
) -> tuple[list[Row], tuple[str, ...]]:
    """As `--glossary`, `--style` and `--unseen` ask: the rows, and the wordings that tell their values to a reader of
    the glossary's language, for masking. Without a file the rows as they are. Raises RecipeError.
    """
    if file is None:
        return list(rows), ()
    glossary = read_glossary(file)
    return in_style(rows, glossary, style, unseen), glossary.telling
