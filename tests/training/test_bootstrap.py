"""The arithmetic of the paired bootstrap on counts that a hand can check."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from training.bootstrap import FEWEST_GROUPS, count, differences, exchanged, figures, mean, resamples, totals


def one_hot(codes, values):
    return np.eye(values, dtype=bool)[np.asarray(codes)]


def counts(wanted, found, owner, values=3):
    owner = np.asarray(owner)
    return count(one_hot(wanted, values), one_hot(found, values), owner, owner.max() + 1)


def test_figures_of_the_whole_are_those_of_sklearn():
    random = np.random.default_rng(0)
    wanted, found, owner = (
        random.integers(0, 9, 400),
        random.integers(0, 11, 400),
        random.integers(0, 90, 400),
    )
    found = np.where(random.random(400) < 0.7, wanted, found)
    whole = figures(totals(counts(wanted, found, owner, 11), np.ones((1, 90), np.float32)))
    assert whole["accuracy"][0] == pytest.approx(accuracy_score(wanted, found))
    expected = f1_score(wanted, found, labels=np.unique(wanted), average="macro", zero_division=0)
    assert whole["macro_f1"][0] == pytest.approx(expected)


def test_a_group_drawn_twice_counts_twice_and_one_not_drawn_counts_nothing():
    # group 0: red as red, red as green; group 1: green as green; group 2: blue as red
    one = counts([0, 0, 1, 2], [0, 1, 1, 0], [0, 0, 1, 2])
    found = figures(totals(one, np.array([[2, 1, 0]], np.float32)))
    assert found["accuracy"][0] == pytest.approx(3 / 5)
    red, green = 2 * 2 / (4 + 2), 2 * 1 / (1 + 3)
    assert found["macro_f1"][0] == pytest.approx((red + green) / 2)  # blue was not drawn


def test_several_values_of_a_row_are_right_together_or_not_at_all():
    wanted = np.array([[True, True], [True, False]])
    found = np.array([[True, False], [True, False]])
    whole = figures(totals(count(wanted, found, np.array([0, 1]), 2), np.ones((1, 2), np.float32)))
    assert whole["accuracy"][0] == 0.5
    assert whole["macro_f1"][0] == pytest.approx((1.0 + 0.0) / 2)


def test_every_resample_draws_as_many_groups_as_there_are_and_a_seed_repeats_them():
    drawn = resamples(40, 100, seed=3)
    assert (drawn.drawn.sum(axis=1) == 40).all()
    assert set(np.unique(drawn.exchanged)) == {0, 1}
    same, other = resamples(40, 100, seed=3), resamples(40, 100, seed=4)
    assert (drawn.drawn == same.drawn).all() and (drawn.exchanged == same.exchanged).all()
    assert (drawn.drawn != other.drawn).any() and (drawn.exchanged != other.exchanged).any()


def between(wanted, a, b, owner, together=1):
    weights = resamples(max(owner) + 1, 1000, seed=0)
    found = differences(counts(wanted, a, owner), counts(wanted, b, owner), weights)["accuracy"]
    return found, found.interval(together)


def test_the_same_answers_differ_by_nothing():
    wanted = [0, 1, 2] * 20
    found, interval = between(wanted, wanted[::-1], wanted[::-1], range(60))
    assert found.value == 0
    assert interval == (0, 0)


def test_answers_paired_row_by_row_tell_what_their_sums_would_not():
    """Both are wrong on half of the rows, the same ones but for B's four more: unpaired that would be noise."""
    wanted = [0] * 400
    a = [0] * 200 + [1] * 200
    b = [0] * 180 + [1] * 220
    found, (low, high) = between(wanted, a, b, range(400))
    assert found.value == pytest.approx(-0.05)
    assert low < -0.05 < high < 0
    assert high - low == pytest.approx(2 * 1.96 * (0.05 * 0.95 / 400) ** 0.5, rel=0.15)


def test_rows_of_one_group_are_one_piece_of_evidence():
    wanted, b = [0] * 100, [1] * 10 + [0] * 90
    alone = between(wanted, wanted, b, range(100))[1]
    together = between(wanted, wanted, b, [n // 10 for n in range(100)])[1]
    assert alone[1] < 0 < together[1]


def test_intervals_looked_at_together_are_wider():
    wanted, b = [0] * 100, [1] * 6 + [0] * 94
    assert between(wanted, wanted, b, range(100))[1][1] < 0 < between(wanted, wanted, b, range(100), 50)[1][1]


def test_too_few_groups_prove_nothing():
    few = FEWEST_GROUPS - 1
    assert between([0] * few, [0] * few, [1] * few, range(few))[1] == (-1, 1)
    assert between([0] * few, [1] * few, [1] * few, range(few))[1] == (0, 0)


def test_no_interval_is_wider_than_a_difference_can_be():
    many = FEWEST_GROUPS
    assert between([0] * many, [0] * many, [1] * many, range(many))[1][0] == -1
    assert between([0] * many, [1] * many, [0] * many, range(many))[1][1] == 1


def test_the_mean_of_two_attributes_is_drawn_together():
    """What one attribute loses the other gains on the very same rows: their mean is certain."""
    wanted, b = [0] * 40, [1] * 20 + [0] * 20
    weights = resamples(40, 200, seed=0)
    right, half = (counts(wanted, answers, range(40)) for answers in (wanted, b))
    loss, gain = differences(right, half, weights)["accuracy"], differences(half, right, weights)["accuracy"]
    overall = mean([loss, gain])
    assert overall.value == 0
    assert overall.interval(1) == pytest.approx((0, 0))
    assert loss.interval(1)[1] < 0
    alike = mean([loss, loss])
    assert (alike.draws == loss.draws).all() and (alike.exchanges == loss.exchanges).all()


def test_a_hundred_and_forty_values_of_four_thousand_rows_take_no_loop():
    random = np.random.default_rng(0)
    wanted, found = random.integers(0, 141, (2, 4000))
    weights = resamples(4000, 1000, seed=0).drawn
    drawn = figures(totals(counts(wanted, found, np.arange(4000), 141), weights))
    assert drawn["macro_f1"].shape == (1000,)
    assert 0 < drawn["macro_f1"].std() < 0.01


def test_groups_that_change_places_take_their_answers_along():
    a, b = counts([0, 1, 1], [0, 1, 0], [0, 1, 1]), counts([0, 1, 1], [1, 1, 1], [0, 1, 1])
    sums = exchanged(a, b, np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32))
    accuracy = [(3 * figures(one)["accuracy"]).round().tolist() for one in sums]
    assert accuracy == [[2, 1, 3, 2], [2, 3, 1, 2]]


def test_a_value_of_one_row_is_not_surer_than_one_answer_can_be():
    """Twenty values of one row each, A right where B is wrong and the other way round: the spread is that of coins."""
    wanted = np.arange(20)
    a, b = (np.where(wanted % 2 == parity, wanted, 20) for parity in (0, 1))
    table = [counts(wanted, answers, np.arange(20), 21) for answers in (a, b)]
    found = differences(*table, resamples(20, 4000, seed=0))["macro_f1"]
    assert found.exchanges.std() == pytest.approx(1 / 20**0.5, rel=0.05)
    assert found.draws.std() < 0.95 * found.exchanges.std()
    low, high = found.interval(1)
    assert high - low == pytest.approx(2 * 1.96 / 20**0.5, rel=0.05)


def test_a_value_that_is_only_answered_in_a_resample_is_none_of_its_values():
    # group 0: red as red and as blue; group 1, which is not drawn: blue as blue
    one = counts([0, 0, 2], [0, 2, 2], [0, 0, 1])
    found = figures(totals(one, np.array([[1, 0]], np.float32)))
    assert found["macro_f1"][0] == pytest.approx(2 * 1 / (2 + 1))


def test_as_many_groups_as_it_takes_prove_something_and_one_less_nothing():
    for groups, proves in ((10, True), (9, False)):
        half = [1] * (groups // 2) + [0] * (groups - groups // 2)
        low, high = between([0] * groups, [0] * groups, half, range(groups))[1]
        assert (high < 1) is proves
        assert proves or low == -1


def in_some_of(groups, owner, b):
    """A right answer beside B, of rows whose owners are some of so many groups."""
    table = [
        count(one_hot([0] * len(b), 3), one_hot(said, 3), np.asarray(owner), groups)
        for said in ([0] * len(b), b)
    ]
    return differences(*table, resamples(groups, 200, seed=0))["accuracy"]


def test_groups_without_a_labelled_row_prove_nothing():
    assert in_some_of(12, range(6), [1, 1, 1, 0, 0, 0]).interval(1) == (-1, 1)


def test_a_mean_rests_on_the_groups_of_the_attribute_that_has_the_most():
    few, many = in_some_of(12, range(6), [1, 1, 1, 0, 0, 0]), in_some_of(12, range(12), [1] * 3 + [0] * 9)
    assert mean([few, many]).interval(1) != (-1, 1)
    assert mean([few, few]).interval(1) == (-1, 1)
