"""The rule behind `auto`: the confidence from which values keep a precision, not only here but on a next sample too.

The promise: the share of right values among those of `auto`, counted on a next sample as large as this one, is at
least the goal with the wanted certainty. It knows confidences and whether they were right, no models and attributes.

Legend: N offered values, C counts that are tested.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

# A walk begins at all values, at a half of them, a quarter and an eighth. A few precise values need an early start; a
# precision that is nearly the same everywhere shows only where there are many.
STARTS = 4
TESTS = 100  # one at every hundredth of the values: a finer walk would gain less than a hundredth of coverage


def safe_threshold(
    confidence: NDArray[np.float32],
    right: NDArray[np.bool_],
    owner: NDArray[np.int64],
    goal: float,
    certainty: float,
) -> float | None:
    """The lowest confidence from which the promise holds, None where it holds from none; `owner` is the group, (N,).

    Thresholds are tested from strict to lax in a sequence with several starts: each start brings its share of the
    allowed chance of error, a passed test hands on what it had, a failed one loses it. However the tests hang
    together, the chance that any is passed wrongly stays within the whole (the fallback procedure, Wiens and
    Dmitrienko 2005; thresholds as tests: Angelopoulos et al. 2021, "Learn then Test"). With one start an early
    mistake would end the walk. What is tested when depends on how many values there are and how they hang
    together in groups, never on which confidences they have.
    """
    effect = design_effect(right, owner)
    least = math.ceil(fewest(goal, certainty) * effect)
    if len(confidence) < least:
        return None
    order = np.argsort(-confidence, kind="stable")
    ranked, hits = confidence[order], right[order].cumsum()
    counts = whole_ties(counts_to_test(len(ranked), least), ranked)
    errors = counts - hits[counts - 1]
    chances = chance_of_breaking(errors / effect, counts / effect, goal)
    starts = starts_of(len(ranked), effect, goal, 1 - certainty)
    shares = shares_of(counts, starts, 1 - certainty)
    allowed, safe = 0.0, None
    for count, chance, share in zip(counts.tolist(), chances.tolist(), shares.tolist(), strict=True):
        allowed += share
        if chance <= allowed:
            safe = float(ranked[count - 1])
        else:
            allowed = 0.0
    return safe


def chance_of_breaking(
    errors: NDArray[np.float64], sizes: NDArray[np.float64], goal: float
) -> NDArray[np.float64]:
    """How likely a next sample of the same size breaks the goal after so many errors among so many values, (C,) each.

    The level of the exact one-sided prediction limit for a second binomial sample (Thatcher 1964), as a tail of the
    beta-binomial distribution, which is also defined for the fractions of an effective sample. A bound on the
    true precision alone (Clopper-Pearson) would forget that the next sample has luck of its own: with its true
    precision at the goal, one of two samples breaks it. 1 where the goal is missed already.
    """
    chances = np.ones(len(sizes))
    # Rounding must not take an allowed error away: 0.05 * 80 is 4.
    most = np.floor((1 - goal) * sizes + 1e-9)
    kept = errors <= most
    if not kept.any():
        return chances
    wrong, size, most = (part[kept, np.newaxis] for part in (errors, sizes, most))  # (C, 1)
    next_wrong = np.arange(int(most.max()) + 1)  # (E,)
    within = next_wrong <= most
    drawn = np.where(within, next_wrong, 0)  # (C, E)
    likelihood = (
        betaln(drawn + wrong + 1, 2 * size - wrong - drawn)
        - betaln(drawn + 1, size - drawn + 1)
        - betaln(wrong + 1, size - wrong)
        - np.log(size + 1)
    )
    chances[kept] = 1 - np.where(within, np.exp(likelihood), 0).sum(axis=1)
    return chances


def design_effect(right: NDArray[np.bool_], owner: NDArray[np.int64]) -> float:
    """How many values that come in groups are worth one independent one, at least 1.

    The variance of their precision with whole groups drawn, linearised as that of a ratio, over the binomial one
    (Kish 1965; for intervals: Korn and Graubard 1998). One error more is added whose whole group errs with it, so
    that a handful of errors cannot pass for independent by luck. Of all values and not of those over a threshold,
    where errors are too few to tell.
    """
    if not len(right):
        return 1.0
    _, codes = np.unique(owner, return_inverse=True)
    sizes = np.bincount(codes).astype(np.float64)
    precision = float(right.mean())
    excess = np.bincount(codes, right - precision)
    by_group = float((excess**2).sum()) * len(sizes) / max(1, len(sizes) - 1)
    together = float((sizes**2).mean() / sizes.mean())
    return max(1.0, (by_group + together) / (len(right) * precision * (1 - precision) + 1))


@lru_cache
def fewest(goal: float, certainty: float) -> int:
    """How many independent values it takes at least to promise anything, if every one of them is right."""
    allowed = 0
    while True:
        # A sample of this size is the smallest that may break with one error more.
        size = math.ceil(allowed / (1 - goal) - 1e-9)
        if size and chance_of_breaking(np.zeros(1), np.array([float(size)]), goal)[0] <= 1 - certainty:
            return size
        allowed += 1


def counts_to_test(total: int, least: int) -> NDArray[np.int64]:
    """How many of the most confident values each test takes, (C,), the fewest first and at last all of them."""
    return np.array([*range(least, total, max(1, total // TESTS)), total])


def whole_ties(counts: NDArray[np.int64], ranked: NDArray[np.float32]) -> NDArray[np.int64]:
    """The counts with all values of the same confidence: a threshold takes them all or none. `ranked` falls."""
    return np.unique(np.searchsorted(-ranked, -ranked[counts - 1], side="right"))


def starts_of(total: int, effect: float, goal: float, error: float) -> list[float]:
    """The counts at which the walk begins: all values, a half, a quarter and an eighth, as far as there is room.
    The first is late enough that its share of the error lets an errorless walk pass, or it could never begin.
    """
    for many in range(STARTS, 1, -1):
        first = math.ceil(fewest(goal, 1 - error / many) * effect)
        halvings = [total / 2**halving for halving in range(many)]
        if max(halvings[-1], first) < halvings[-2]:
            return [*halvings[:-1], max(halvings[-1], first)]
    return [total]


def shares_of(counts: NDArray[np.int64], starts: Sequence[float], error: float) -> NDArray[np.float64]:
    """The part of the allowed chance of error that each test brings, (C,): equal ones at the starts, else none."""
    shares = np.zeros(len(counts))
    np.add.at(shares, np.searchsorted(counts, starts), error / len(starts))
    return shares
