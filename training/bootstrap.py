"""Whether one set of answers is better than another or only luckier: a paired bootstrap over groups.

Rows of one group (the same title, the same photo) are right and wrong together, so groups are drawn and not rows,
and both sets of answers are measured on the same draw (Efron and Tibshirani 1993, chapters 8 and 13). It knows
nothing of models and taxonomies. Legend: N rows, G groups, V values of an attribute, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


def resamples(groups: int, number: int, seed: int) -> NDArray[np.float32]:
    """How often each group is drawn, (R, G); every row sums to G."""
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=number)
    return drawn.astype(np.float32)


def figures(counts: Counts, weights: NDArray[np.float32]) -> dict[Figure, NDArray[np.float64]]:
    """Accuracy and macro-F1 of each resample, (R,). Macro-F1 is the mean over the values that occur in it; where
    no labelled row was drawn both are 0.
    """
    # Sums of whole numbers are exact in float32, which multiplies twice as fast; their ratios are not.
    rows, exact = ((weights @ part).astype(np.float64) for part in (counts.rows, counts.exact))  # (R,)
    right, wanted, found = (
        (weights @ part).astype(np.float64) for part in (counts.right, counts.wanted, counts.found)
    )  # (R, V)
    # Where nothing is wanted nothing is right: the value adds 0 to the sum, and is not counted below.
    f1 = 2 * right / np.maximum(wanted + found, 1)
    return {
        "accuracy": exact / np.maximum(rows, 1),
        "macro_f1": f1.sum(axis=1) / np.maximum((wanted > 0).sum(axis=1), 1),
    }


@dataclass(frozen=True)
class Difference:
    """One figure of A and of B on the same rows; `draws` (R,) is B minus A in each resample."""

    a: float
    b: float
    draws: NDArray[np.float64]
    groups: int

    @property
    def value(self) -> float:
        return self.b - self.a

    def interval(self, together: int) -> tuple[float, float]:
        """Bootstrap standard errors to both sides, so many that all intervals of the `together` differences that are
        looked at hold at once with probability CONFIDENCE (Bonferroni): of fifty intervals that hold for themselves
        one or two would show a loss by luck alone. From -1 to 1 where FEWEST_GROUPS are not reached.
        """
        if self.groups < FEWEST_GROUPS and self.draws.any():
            return -1.0, 1.0
        errors = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * together))
        reach = errors * float(self.draws.std())
        return self.value - reach, self.value + reach


def differences(a: Counts, b: Counts, weights: NDArray[np.float32]) -> dict[Figure, Difference]:
    """B against A, both counted over the same rows."""
    whole = np.ones((1, weights.shape[1]), np.float32)
    points = [figures(counts, whole) for counts in (a, b)]
    drawn = [figures(counts, weights) for counts in (a, b)]
    groups = int((a.rows > 0).sum())
    return {
        name: Difference(
            float(points[0][name][0]), float(points[1][name][0]), drawn[1][name] - drawn[0][name], groups
        )
        for name in FIGURES
    }


def mean(differences: Sequence[Difference]) -> Difference:
    """The mean over attributes, whose resamples are the same draws of groups."""
    return Difference(
        float(np.mean([difference.a for difference in differences])),
        float(np.mean([difference.b for difference in differences])),
        np.mean([difference.draws for difference in differences], axis=0),
        max(difference.groups for difference in differences),
    )
