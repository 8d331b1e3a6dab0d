"""Which rows are shown more often, and how much."""

from collections import Counter

from models.taxonomy import Attribute, Taxonomy
from training.rebalance import repeated
from training.table import Row

TAXONOMY = Taxonomy((Attribute("colour", ("black", "mauve")), Attribute("kind", ("shirt", "shoe"))))


def row(number: int, colour: str, kind: str = "shirt") -> Row:
    return Row(
        str(number), "title", "", (), "group", {"colour": (colour,) if colour else (), "kind": (kind,)}
    )


def test_a_rare_value_is_repeated_by_the_square_root_of_how_rare_it_is():
    rows = [row(n, "mauve" if n < 10 else "black") for n in range(1000)]
    times = Counter(shown.id for shown in repeated(rows, TAXONOMY, rare_share=0.09, seed=0))
    assert {times[str(n)] for n in range(10)} == {3}  # sqrt(0.09 / 0.01)
    assert {times[str(n)] for n in range(10, 1000)} == {1}


def test_a_fraction_is_drawn_and_stays_the_same_for_a_seed():
    rows = [row(n, "mauve" if n < 500 else "black") for n in range(10_000)]
    one, other = (repeated(rows, TAXONOMY, rare_share=0.1125, seed=seed) for seed in (1, 1))
    assert one == other
    assert 10_200 < len(one) < 10_300  # sqrt(0.1125 / 0.05) = 1.5: about half of the 500 once more


def test_the_rarest_value_of_a_row_counts_and_missing_ones_do_not():
    rows = [row(n, "" if n else "mauve", "shoe" if n < 2 else "shirt") for n in range(100)]
    times = Counter(shown.id for shown in repeated(rows, TAXONOMY, rare_share=0.08, seed=0))
    assert times["1"] == 2  # shoe: sqrt(0.08 / 0.02)
    assert times["0"] in (2, 3)  # mauve: sqrt(0.08 / 0.01) = 2.8, above its shoe's 2
    assert times["50"] == 1


def test_a_value_that_the_taxonomy_lacks_teaches_nothing_and_repeats_nothing():
    rows = [row(n, "taupe" if n == 0 else "black") for n in range(1000)]
    assert repeated(rows, TAXONOMY, rare_share=0.09, seed=0) == rows
