"""The size of a batch that nobody urgent fills."""

from __future__ import annotations

from workers.pace import Pace


def test_it_shrinks_in_proportion_to_what_took_too_long_and_grows_by_one() -> None:
    pace = Pace(0.06, 32)
    pace.learn(32, 0.3)
    assert pace.size == 6
    pace.learn(6, 0.05)
    assert pace.size == 7
    pace.learn(7, 0.065)
    assert pace.size == 6


def test_a_batch_that_was_not_full_proves_nothing_by_being_quick() -> None:
    pace = Pace(0.06, 32)
    pace.learn(32, 0.3)
    pace.learn(1, 0.01)
    assert pace.size == 6


def test_a_slow_single_item_says_nothing_about_larger_batches() -> None:
    pace = Pace(0.03, 32)
    pace.learn(1, 0.5)
    assert pace.size == 32


def test_it_never_goes_below_what_a_batch_is_good_for_nor_over_the_limit() -> None:
    pace = Pace(0.03, 32)
    pace.learn(32, 100)
    assert pace.size == 4
    for _ in range(50):
        pace.learn(pace.size, 0.001)
    assert pace.size == 32
    one = Pace(0.03, 1)
    one.learn(1, 100)
    assert one.size == 1
