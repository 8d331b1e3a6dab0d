"""The test rows in the language of a glossary: what a checkpoint is measured on that was trained with one.

With the wordings that training saw and with those that were held out from it, whole and mixed, with photos and without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.taxonomy import Taxonomy
from training.conditions import Condition, shown
from training.glossary import Glossary
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
        render = rendering(glossary.unseen() if way.unseen else glossary, way.style)
        yield name, shown([render(row) for row in rows], way.condition, taxonomy)
