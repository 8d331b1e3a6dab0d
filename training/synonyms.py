"""Says the same in other words: sellers of one shop write `tee` where those of another write `T-shirt`."""

from pathlib import Path

import numpy as np

from training.errors import RecipeError

ENGLISH = Path(__file__).with_name("thesaurus.txt")
REPLACED = 0.5  # of the words of a changed title that have a synonym
EDGES = ",.;:!?()[]\"'"  # what may stand around a word


class Thesaurus:
    """Groups of words that mean the same. Raises RecipeError for a file that holds none."""

    def __init__(self, path: Path = ENGLISH) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"augment.thesaurus: {path} cannot be read ({error})") from error
        groups = [
            [stripped for word in line.split(",") if (stripped := word.strip())]
            for line in lines
            if not line.startswith("#")
        ]
        self.others = {
            word.lower(): [other for other in group if other.lower() != word.lower()]
            for group in groups
            for word in group
            if len(group) > 1
        }
        if not self.others:
            raise RecipeError(f"augment.thesaurus: {path} has no line of two words, separated by a comma")

    def reworded(self, text: str, random: np.random.Generator) -> str:
        """About half of the words that have a synonym are replaced by one, in the same capitals."""
        return " ".join(self.replaced(word, random) for word in text.split())

    def replaced(self, word: str, random: np.random.Generator) -> str:
        bare = word.strip(EDGES)
        others = self.others.get(bare.lower(), [])
        if not others or random.random() >= REPLACED:
            return word
        other = others[int(random.integers(len(others)))]
        capital = bare[:1].isupper()
        other = (
            other.upper() if bare.isupper() and len(bare) > 1 else other.capitalize() if capital else other
        )
        return word.replace(bare, other, 1)
