"""The size of a batch that nobody urgent fills."""

from __future__ import annotations

from workers.pace import LOOKS, TRUST, Pace


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


def after(fixed_s: float, each_s: float, forwards: int) -> list[int]:
    """The sizes of the batches of a device of that cost, at a budget of 0.07 s."""
    pace, sizes = Pace(0.07, 32), []
    for _ in range(forwards):
        sizes.append(pace.size)
        pace.learn(pace.size, fixed_s + each_s * pace.size)
    return sizes


def test_where_a_forward_costs_the_same_whatever_it_holds_it_stays_full() -> None:
    tried = [11, *[4] * LOOKS]
    # Once at the start, and again when the judgement is old.
    expected = [32, *tried, *[32] * (TRUST + 1), *tried, 32]
    assert after(fixed_s=0.2, each_s=0, forwards=len(expected)) == expected


def test_a_judgement_grows_old_also_where_batches_stay_small() -> None:
    tried, kept = [6, *[4] * (LOOKS - 1)], [10] * (TRUST + 1)
    expected = [32, *tried, *kept, 4]
    assert after(fixed_s=0.08, each_s=0.0078, forwards=len(expected)) == expected


def test_half_of_the_work_goes_into_items_where_the_fixed_cost_is_high() -> None:
    assert after(fixed_s=0.09, each_s=0.0034, forwards=20)[-1] == 26


def test_where_items_cost_what_there_is_the_budget_decides() -> None:
    assert after(fixed_s=0.007, each_s=0.0075, forwards=60)[-1] in (8, 9)


def test_one_slow_moment_is_no_fixed_cost() -> None:
    pace = Pace(0.07, 32)
    pace.learn(32, 0.25)
    for slow in (1, 3, 2, 1, 3):
        pace.learn(pace.size, slow * (0.007 + 0.0075 * pace.size))
    assert pace.size < 10


def judging() -> Pace:
    """A device of 0.007 s and 0.0075 s for each item, whose full batch took too long."""
    pace = Pace(0.07, 32)
    pace.learn(32, 0.247)
    assert pace.size == 9
    return pace


def test_a_larger_batch_that_takes_too_long_is_no_reason_for_larger_ones() -> None:
    pace = judging()
    pace.learn(32, 0.08)
    assert pace.size == 9


def test_what_single_items_cost_is_no_fixed_cost_of_batches() -> None:
    pace = judging()
    for _ in range(LOOKS):
        pace.learn(1, 0.069)
    assert pace.size == 9


def test_of_several_looks_the_quickest_counts() -> None:
    pace = judging()
    for forward_s in (0.11, 0.11, 0.067, 0.11, 0.11):
        pace.learn(8, forward_s)
    assert pace.size == 5
