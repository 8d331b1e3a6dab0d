"""Time in which at least one of several overlapping forwards runs."""

from __future__ import annotations

from workers.busy_time import BusyTime


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_overlaps_is_counted_once_and_pauses_are_not() -> None:
    clock = Clock()
    busy = BusyTime(clock)
    told = []
    # From 0 to 4 and from 1 to 3; a pause; from 10 to 12.
    for at, step in (
        (0, busy.begin),
        (1, busy.begin),
        (3, busy.end),
        (4, busy.end),
        (10, busy.begin),
        (12, busy.end),
    ):
        clock.now = 100.0 + at
        told.append(step())
    assert told == [None, None, 3.0, 1.0, None, 2.0]


def test_a_long_one_is_told_whenever_a_short_one_beside_it_ends() -> None:
    clock = Clock()
    busy = BusyTime(clock)
    busy.begin()
    told = []
    for _ in range(3):
        clock.now += 2
        busy.begin()
        clock.now += 1
        told.append(busy.end())
    assert told == [3.0, 3.0, 3.0]
