"""How often two taggers offer the same: what an export is accepted by.

Legend: N products.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from models.calibration import PATTERNS, Pattern
from models.preprocessing import NO_TOKENS
from models.product import Example, Tagging
from models.tagger import Tagger

Offered = dict[str, frozenset[str]]  # the values offered for each attribute, none where it abstains
NOTHING: frozenset[str] = frozenset()
BATCH = 32  # several times what a CPU runs at once: progress moves, and nothing waits for memory


@dataclass(frozen=True)
class Agreement:
    """By pattern and attribute, the share of `products` for which both offer the same."""

    products: int
    attributes: dict[Pattern, dict[str, float]]

    def of(self, pattern: Pattern) -> float:
        """The share of all tags of a pattern."""
        shares = self.attributes[pattern].values()
        return sum(shares) / len(shares)

    def short(self, least: float) -> list[Pattern]:
        return [pattern for pattern in self.attributes if self.of(pattern) < least]


def offers(
    tagger: Tagger, examples: Sequence[Example], patterns: Sequence[Pattern] = PATTERNS
) -> Iterator[list[dict[Pattern, Offered]]]:
    """Batch by batch, what is offered for each example with both modalities and with each one alone, or for some of
    these `patterns`.
    """
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        taggings = {
            pattern: tagger.predict([reduced(example, pattern) for example in batch]) for pattern in patterns
        }
        yield [{pattern: offered(of[n]) for pattern, of in taggings.items()} for n in range(len(batch))]


def reduced(example: Example, pattern: Pattern) -> Example:
    if pattern == "text":
        return replace(example, photos=example.photos[:0])
    return replace(example, token_ids=NO_TOKENS, type_ids=NO_TOKENS) if pattern == "photos" else example


def offered(tagging: Tagging) -> Offered:
    found: dict[str, set[str]] = {}
    for tag in tagging.tags:
        found.setdefault(tag.attribute, set()).update([] if tag.value is None else [tag.value])
    return {attribute: frozenset(values) for attribute, values in found.items()}


def agreement(
    names: Sequence[str], one: list[dict[Pattern, Offered]], other: list[dict[Pattern, Offered]]
) -> Agreement:
    """Of two taggers on the same N products, for attributes of these names.

    An attribute that does not apply is offered nothing, as one that is abstained from: both send it to nobody.
    """
    pairs = list(zip(one, other, strict=True))
    patterns = list(one[0]) if one else PATTERNS
    return Agreement(
        len(pairs),
        {
            pattern: {
                name: sum(a[pattern].get(name, NOTHING) == b[pattern].get(name, NOTHING) for a, b in pairs)
                / len(pairs)
                for name in names
            }
            for pattern in patterns
        },
    )
