"""The threshold of `auto` keeps the promised precision on a next sample, and is found where it can be kept."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import hypergeom

from training.promise import chance_of_breaking, design_effect, fewest, safe_threshold, starts_of

GOAL, CERTAINTY = 0.95, 0.95


def draw(random, rows, odds, largest_group=1):
    """Confidences that mean what they say; the rows of a group share theirs and are right or wrong together."""
    owner = np.repeat(np.arange(rows), random.integers(1, largest_group + 1, rows))[:rows]
    confidence = expit(odds + 1.5 * random.standard_normal(rows))
    right = random.uniform(size=rows) < confidence
    return confidence[owner].astype(np.float32), right[owner], owner


def promises(number, rows, odds, largest_group=1):
    """The share of samples with a promise, and the share in which the next sample breaks it."""
    random, made, broken = np.random.default_rng(0), 0, 0
    for _ in range(number):
        threshold = safe_threshold(*draw(random, rows, odds, largest_group), GOAL, CERTAINTY)
        if threshold is not None:
            made += 1
            confidence, right, _ = draw(random, rows, odds, largest_group)
            broken += right[confidence >= threshold].mean() < GOAL
    return made / number, broken / number


# 97 %, 91 % and 84 % of all answers are right
@pytest.mark.parametrize("odds", [4.5, 3.0, 2.0])
@pytest.mark.parametrize("largest_group", [1, 5])
def test_the_promise_is_broken_on_no_more_next_samples_than_allowed(odds, largest_group):
    assert promises(150, 1500, odds, largest_group)[1] <= 0.05


def test_where_there_is_clear_room_something_is_nearly_always_promised():
    made, broken = promises(100, 3000, 4.5)
    assert made >= 0.98
    assert broken == 0


def test_a_precision_at_the_goal_everywhere_is_rarely_promised():
    """Nothing ranks the values, so each next sample breaks any promise with one chance in two."""
    random = np.random.default_rng(0)
    made = 0
    for _ in range(100):
        confidence, right = random.uniform(size=2000).astype(np.float32), random.uniform(size=2000) < GOAL
        made += safe_threshold(confidence, right, np.arange(2000), GOAL, CERTAINTY) is not None
    assert made <= 5


def test_the_chance_of_breaking_is_thatchers_for_whole_numbers():
    """Also where as many are wrong as may be, where the share of these is rounded, and for several sizes at once."""
    for goal, cases in ((GOAL, ((80, 0), (200, 3), (200, 10), (1000, 30))), (0.9, ((10, 0), (100, 5)))):
        exact = []
        for size, errors in cases:
            most = round(size * (1 - goal))
            exact.append(hypergeom(2 * size, errors + most + 1, size).cdf(errors))
        sizes, errors = (np.array(column, np.float64) for column in zip(*cases, strict=True))
        assert chance_of_breaking(errors, sizes, goal) == pytest.approx(exact)
    assert chance_of_breaking(np.array([11.0]), np.array([200.0]), GOAL) == 1, "missed already"


def test_too_few_values_promise_nothing():
    assert fewest(GOAL, CERTAINTY) == 80
    confidence = np.linspace(0.9, 1, 80, dtype=np.float32)
    right, owner = np.ones(80, np.bool_), np.arange(80)
    assert safe_threshold(confidence[1:], right[1:], owner[1:], GOAL, CERTAINTY) is None
    assert safe_threshold(confidence, right, owner, GOAL, CERTAINTY) == pytest.approx(0.9)


def test_the_first_start_is_where_an_errorless_walk_passes():
    assert starts_of(1600, 1.0, GOAL, 0.05) == [1600, 800, 400, 200]
    assert starts_of(160, 1.0, GOAL, 0.05) == [
        160,
        100,
    ]  # at 80 half of the allowed error is less than none wrong
    assert starts_of(90, 1.0, GOAL, 0.05) == [90]
    for total in range(100, 1000, 7):
        starts = starts_of(total, 1.3, GOAL, 0.05)
        first = np.array([starts[-1] / 1.3])
        assert len(starts) == 1 or chance_of_breaking(np.zeros(1), first, GOAL)[0] <= 0.05 / len(starts)


def test_of_some_two_hundred_values_much_is_promised_and_of_half_as_many_little():
    """As a catalogue of a thousand products has them: 93 % right, and the errors among those in doubt."""
    random = np.random.default_rng(0)
    covered = {}
    for rows in (100, 200):
        shares = []
        for _ in range(50):
            confidence = random.uniform(0.3, 1, rows).astype(np.float32)
            right = random.uniform(size=rows) < 1 - 0.35 * (confidence < 0.44)
            threshold = safe_threshold(confidence, right, np.arange(rows), GOAL, CERTAINTY)
            shares.append(0.0 if threshold is None else (confidence >= threshold).mean())
        covered[rows] = np.mean(shares)
    assert covered[100] < 0.2
    assert covered[200] > 0.5


def test_as_many_values_in_groups_promise_less():
    confidence, right = np.linspace(0.9, 1, 200, dtype=np.float32), np.ones(200, np.bool_)
    assert safe_threshold(confidence, right, np.arange(200), GOAL, CERTAINTY) is not None
    assert safe_threshold(confidence, right, np.arange(200) // 5, GOAL, CERTAINTY) is None


def test_values_that_err_together_are_worth_as_many_as_there_are_groups():
    right = np.random.default_rng(0).uniform(size=1000) < 0.9
    assert design_effect(right.repeat(5), np.arange(5000) // 5) == pytest.approx(5, rel=0.05)
    assert design_effect(right, np.arange(1000)) == pytest.approx(1, rel=0.05)


def test_values_that_differ_more_within_groups_than_between_are_worth_no_more_than_single_ones():
    assert design_effect(np.tile([True, False], 500), np.arange(1000) // 2) == 1


def test_of_few_groups_the_variance_is_not_underestimated():
    """Two groups of two, one of them wrong: (4 + 2) / (1 + 1)."""
    assert design_effect(np.array([True, True, False, False]), np.array([0, 0, 1, 1])) == 3


def test_a_threshold_takes_values_of_one_confidence_all_or_none():
    """Nine hundred right values and a hundred wrong ones that look the same."""
    confidence = np.full(1000, 0.97, np.float32)
    right = np.arange(1000) < 900
    assert safe_threshold(confidence, right, np.arange(1000), GOAL, CERTAINTY) is None


def test_a_test_that_fails_hands_on_no_chance_of_error():
    """With three errors among the most confident of 200 the first start fails, and the share of the second is just too
    small; with both shares it would pass.
    """
    confidence, right = np.linspace(0.6, 1, 200, dtype=np.float32), np.ones(200, np.bool_)
    for wrong, found in (((-1, -4), 0.6), ((-1, -4, -7), None)):
        right[list(wrong)] = False
        assert safe_threshold(confidence, right, np.arange(200), GOAL, CERTAINTY) == (
            found and pytest.approx(found)
        )


def test_an_early_mistake_does_not_end_the_walk():
    confidence = np.linspace(0.6, 1, 3000, dtype=np.float32)
    right = np.ones(3000, np.bool_)
    right[-60::2] = False  # thirty of the most confident sixty
    assert safe_threshold(confidence, right, np.arange(3000), GOAL, CERTAINTY) == pytest.approx(0.6)


def test_confident_mistakes_promise_nothing():
    confidence = np.linspace(0.5, 1, 1000, dtype=np.float32)
    assert safe_threshold(confidence, confidence < 0.9, np.arange(1000), GOAL, CERTAINTY) is None
