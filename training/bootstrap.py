"""Whether one set of answers is better than another or only luckier: a paired bootstrap over groups.

Rows of one group (the same title, the same photo) are right and wrong together, so groups are drawn and not rows,
and both sets of answers are measured on the same draw (Efron and Tibshirani 1993, chapters 8 and 13).

Macro-F1 gives a value of one row as much weight as one of a thousand, and a bootstrap cannot know how differently that
row might have been answered: alone it finds too little spread. So the groups' answers are also exchanged between
the two sets by the toss of a coin, which tells the spread where both are equally good (chapter 15).

It knows nothing of models and taxonomies. Legend: N rows, G groups, V values of an attribute, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Figure = Literal["accuracy", "macro_f1"]
FIGURES: tuple[Figure, ...] = ("accuracy", "macro_f1")
RESAMPLES = 1000
# That all intervals looked at together hold what is true.
CONFIDENCE = 0.95
# So few groups are drawn alike too often for their spread to say anything.
FEWEST_GROUPS = 10


@dataclass(frozen=True)
class Counts:
    """Answers about one attribute summed by group, float32: `right`, `wanted`, `found` (G, V) over the values that
    occur; `exact`, `rows` (G,). A group without a labelled row is all zeros.
    """

    right: NDArray[np.float32]
    wanted: NDArray[np.float32]
    found: NDArray[np.float32]
    exact: NDArray[np.float32]
    rows: NDArray[np.float32]


def count(
    wanted: NDArray[np.bool_], found: NDArray[np.bool_], owner: NDArray[np.int64], groups: int
) -> Counts:
    """From what is true and what was answered, bool (N, V), and the group of each row, int (N,) below `groups`."""
    occurring = wanted.any(axis=0)

    def summed(of_row: NDArray[np.bool_]) -> NDArray[np.float32]:
        total = np.zeros((groups, *of_row.shape[1:]), np.float32)
        np.add.at(total, owner, of_row)
        return total

    return Counts(
        summed((wanted & found)[:, occurring]),
        summed(wanted[:, occurring]),
        summed(found[:, occurring]),
        summed((wanted == found).all(axis=1)),
        summed(np.ones(len(owner), np.bool_)),
    )


@dataclass(frozen=True)
class Resamples:
    """float32 (R, G): how often each group is `drawn`, every row sums to G; 1 where its answers are `exchanged`."""

    drawn: NDArray[np.float32]
    exchanged: NDArray[np.float32]

    @property
    def groups(self) -> int:
        return self.drawn.shape[1]


def resamples(groups: int, number: int, seed: int) -> Resamples:
    random = np.random.default_rng(seed)
    drawn = random.multinomial(groups, np.full(groups, 1 / groups), size=number)
    exchanged = random.integers(0, 2, (number, groups))
    return Resamples(drawn.astype(np.float32), exchanged.astype(np.float32))


def totals(counts: Counts, weights: NDArray[np.float32]) -> Counts:
    """The counts of each resample, its R in the place of G."""
    # Sums of whole numbers are exact in float32, which multiplies twice as fast; their ratios are not.
    return Counts(*(weights @ getattr(counts, part.name) for part in fields(Counts)))


def plus(one: Counts, other: Counts, times: int) -> Counts:
    """The counts of the one and `times` those of the other."""
    return Counts(*(getattr(one, part.name) + times * getattr(other, part.name) for part in fields(Counts)))


def figures(sums: Counts) -> dict[Figure, NDArray[np.float64]]:
    """Accuracy and macro-F1 of each resample, (R,). Macro-F1 is the mean over the values that occur in it; where
    no labelled row was drawn both are 0.
    """
    # Where nothing is wanted nothing is right: the value adds 0 to the sum, and is not counted below.
    f1 = 2 * sums.right.astype(np.float64) / np.maximum(sums.wanted + sums.found, 1)
    return {
        "accuracy": sums.exact / np.maximum(sums.rows, 1).astype(np.float64),
        "macro_f1": f1.sum(axis=1) / np.maximum((sums.wanted > 0).sum(axis=1), 1),
    }


def exchanged(a: Counts, b: Counts, coins: NDArray[np.float32]) -> tuple[Counts, Counts]:
    """The totals of A and of B, (R, V) and (R,), after the groups of each row of `coins` (R, G) have changed places."""
    whole = np.ones((1, coins.shape[1]), np.float32)
    moved = totals(plus(b, a, -1), coins)
    return plus(totals(a, whole), moved, 1), plus(totals(b, whole), moved, -1)


@dataclass(frozen=True)
class Difference:
    """One figure of A and of B on the same rows; B minus A in each resample is `draws` (R,) where groups are drawn and
    `exchanges` (R,) where they change places.
    """

    a: float
    b: float
    draws: NDArray[np.float64]
    exchanges: NDArray[np.float64]
    groups: int

    @property
    def value(self) -> float:
        return self.b - self.a

    def interval(self, together: int) -> tuple[float, float]:
        """Standard errors to both sides, the larger of bootstrap and exchange, so many that all intervals of the
        `together` differences that are looked at hold at once with probability CONFIDENCE (Bonferroni): of fifty
        intervals that hold for themselves one or two would show a loss by luck alone. From -1 to 1 where
        FEWEST_GROUPS are not reached.
        """
        if self.groups < FEWEST_GROUPS and self.draws.any():
            return -1.0, 1.0
        errors = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * together))
        reach = errors * max(float(self.draws.std()), float(self.exchanges.std()))
        return max(self.value - reach, -1.0), min(self.value + reach, 1.0)


def differences(a: Counts, b: Counts, resampled: Resamples) -> dict[Figure, Difference]:
    """B against A, both counted over the same rows."""
    whole = np.ones((1, resampled.groups), np.float32)
    points = [figures(totals(counts, whole)) for counts in (a, b)]
    drawn = [figures(totals(counts, resampled.drawn)) for counts in (a, b)]
    changed = [figures(sums) for sums in exchanged(a, b, resampled.exchanged)]
    groups = int((a.rows > 0).sum())
    return {
        name: Difference(
            float(points[0][name][0]),
            float(points[1][name][0]),
            drawn[1][name] - drawn[0][name],
            changed[1][name] - changed[0][name],
            groups,
        )
        for name in FIGURES
    }


def mean(differences: Sequence[Difference]) -> Difference:
    """The mean over attributes, whose resamples are the same draws of groups."""
    return Difference(
        float(np.mean([difference.a for difference in differences])),
        float(np.mean([difference.b for difference in differences])),
        np.mean([difference.draws for difference in differences], axis=0),
        np.mean([difference.exchanges for difference in differences], axis=0),
        max(difference.groups for difference in differences),
    )
