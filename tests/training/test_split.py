"""Groups never straddle parts, and the rule depends on nothing but group, seed and shares."""

from collections import Counter

from training.recipe import SplitSection
from training.split import part_of, rows_of
from training.table import Row

SPLIT = SplitSection(seed=3, validation=0.1, calibration=0.2, test=0.3)


def row(number: int, group: str) -> Row:
    return Row(str(number), "title", "", (), group, {})


def test_shares_are_kept():
    count = Counter(part_of(str(group), SPLIT) for group in range(20_000))
    shares = {part: round(number / 20_000, 2) for part, number in count.items()}
    assert shares == {"train": 0.4, "validation": 0.1, "calibration": 0.2, "test": 0.3}


def test_rows_of_a_group_stay_together_in_any_order():
    rows = [row(n, str(n % 50)) for n in range(400)]
    test = {r.id for r in rows_of(rows, "test", SPLIT)}
    assert test
    assert test == {r.id for r in rows_of(rows[::-1], "test", SPLIT)}
    assert not {r.group for r in rows_of(rows, "test", SPLIT)} & {
        r.group for r in rows_of(rows, "train", SPLIT)
    }


def test_another_seed_is_another_split():
    other = SPLIT.model_copy(update={"seed": 4})
    assert any(part_of(str(group), SPLIT) != part_of(str(group), other) for group in range(50))


def test_the_rule_stays_as_it_was_when_older_checkpoints_were_made():
    """Another one would measure them on products that they were trained on."""
    parts = " ".join(part_of(f"group {number}", SPLIT) for number in range(12))
    assert parts == ("test test train test train calibration train test calibration validation train test")
