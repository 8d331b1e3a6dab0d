"""Few products for each value, rare values first."""

from collections import Counter
from pathlib import Path

from models.taxonomy import Attribute, Taxonomy
from training.few_shot import few_shot
from training.table import Row

TAXONOMY = Taxonomy((Attribute("kind", ("shirt", "shoe", "bag")), Attribute("sex", ("men", "women"))))


def row(number, kind, sex):
    values = {"kind": (kind,) if kind else (), "sex": (sex,) if sex else ()}
    return Row(str(number), f"title {number}", "", (Path("a.jpg"),), str(number), values)


ROWS = [row(n, ("shirt", "shoe")[n % 2], ("men", "women", "")[n % 3]) for n in range(60)] + [
    row(60, "bag", "men"),
    row(61, "", ""),
]


def found(rows):
    return Counter(value for row in rows for values in row.values.values() for value in values)


def test_every_value_has_as_many_as_asked_or_all_that_it_has():
    kept = found(few_shot(ROWS, TAXONOMY, 4, seed=0))
    assert kept["bag"] == 1
    assert kept["shirt"] == kept["shoe"] == 4 or kept["men"] == kept["women"] == 4
    assert all(kept[value] >= 4 for value in ("shirt", "shoe", "men", "women"))


def test_few_are_kept_in_their_order_and_each_once():
    kept = few_shot(ROWS, TAXONOMY, 4, seed=0)
    numbers = [int(row.id) for row in kept]
    assert numbers == sorted(set(numbers))
    assert len(kept) <= 4 * 5


def test_enough_for_each_keeps_every_row_that_has_a_value():
    assert few_shot(ROWS, TAXONOMY, 1000, seed=0) == ROWS[:-1]


def test_a_seed_chooses():
    assert few_shot(ROWS, TAXONOMY, 4, seed=1) == few_shot(ROWS, TAXONOMY, 4, seed=1)
    assert few_shot(ROWS, TAXONOMY, 4, seed=1) != few_shot(ROWS, TAXONOMY, 4, seed=2)
