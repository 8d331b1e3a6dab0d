"""The truth tables that heads are counted by, and the groups of their rows."""

import tracemalloc

from training.answers import owners
from training.table import Row


def rows_of(groups):
    return [Row(str(number), "", "", (), group, {}) for number, group in enumerate(groups)]


def test_groups_are_numbered_by_their_names():
    owner, groups = owners(rows_of(["b", "a", "b", "ç", "c"]))
    assert (owner.tolist(), groups) == ([1, 0, 1, 3, 2], 4)


def test_a_group_as_long_as_a_description_takes_no_room_in_every_row():
    rows = rows_of([*(f"title {number}" for number in range(999)), "word " * 2000])
    tracemalloc.start()
    try:
        owners(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e6, "1000 names of up to 10,000 characters would be 40 MB"
