"""Which values are mistaken for which, with products to look at.

Legend: N labelled rows, V values of an attribute.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.taxonomy import Attribute
from training.evaluation import labelled
from training.report.measured import Measured
from training.table import Row

PAIRS = 6
EXAMPLES = 3
WEAKEST = 8
MATRIX = 8  # values in the matrix: what still reads at a glance


@dataclass(frozen=True)
class Confusion:
    """`count` rows given one value and tagged another, `share` of the rows given it; some of them, surest first.

    Of a multiple attribute `given` is empty for a value that was offered wrongly, `tagged` for one missed.
    """

    given: str
    tagged: str
    count: int
    share: float
    examples: tuple[Row, ...]


@dataclass(frozen=True)
class Cell:
    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Matrix:
    """The values with most mistakes: a line for each given one, a column for each tagged one and the others."""

    values: tuple[str, ...]
    rows: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class ValueScore:
    value: str
    rows: int
    tagged: int
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True)
class Mistakes:
    """Of one attribute, shown as it is: pairs most frequent first, values weakest first."""

    wrong: int
    pairs: tuple[Confusion, ...]
    kinds: int  # pairs, also those that are not shown
    matrix: Matrix | None
    weakest: tuple[ValueScore, ...]
    weak: int  # values with mistakes, also those that are not shown


def mistakes_of(measured: Measured, index: int) -> Mistakes:
    attribute = measured.checkpoint.taxonomy.attributes[index]
    target = measured.targets[index]
    keep = labelled(target, attribute)
    rows = [row for row, wanted in zip(measured.rows, keep.tolist(), strict=True) if wanted]
    probability = measured.confidences(index)[keep]
    if attribute.multiple:
        return several(attribute, rows, probability, target[keep] > 0.5)
    return single(attribute, rows, probability)


def single(attribute: Attribute, rows: Sequence[Row], probability: Tensor) -> Mistakes:
    """Of one choice; a given value that the taxonomy lacks is mistaken whatever it was tagged."""
    confidence, found = probability.max(dim=1)
    tagged = [attribute.values[value] for value in found.tolist()]
    given = [row.values[attribute.name][0] for row in rows]
    of_given, of_tagged = Counter(given), Counter(tagged)
    both = Counter(zip(given, tagged, strict=True))
    surest = confidence.argsort(descending=True, stable=True).tolist()
    wrong = [n for n in surest if given[n] != tagged[n]]
    kinds = Counter((given[n], tagged[n]) for n in wrong)
    pairs = [
        Confusion(
            one,
            other,
            count,
            count / of_given[one],
            examples(rows[n] for n in wrong if (given[n], tagged[n]) == (one, other)),
        )
        for (one, other), count in most(kinds, PAIRS)
    ]
    scores = [
        value_score(value, of_given[value], of_tagged[value], both[value, value])
        for value in sorted(of_given)
    ]
    return Mistakes(len(wrong), tuple(pairs), len(kinds), matrix(attribute, both, of_given), *weakest(scores))


def several(attribute: Attribute, rows: Sequence[Row], probability: Tensor, given: Tensor) -> Mistakes:
    """Of a multiple attribute, given (N, V): each value was missed or offered wrongly by itself."""
    offered = probability > 0.5
    scores, pairs = [], []
    for v, value in enumerate(attribute.values):
        count = int(given[:, v].sum())
        hits = int((given[:, v] & offered[:, v]).sum())
        if count:
            scores.append(value_score(value, count, int(offered[:, v].sum()), hits))
        doubt = (probability[:, v] - given[:, v].float()).abs()
        for wrong, one, other in (
            (given[:, v] & ~offered[:, v], value, ""),
            (~given[:, v] & offered[:, v], "", value),
        ):
            if wrong.any():
                surest = torch.where(wrong, doubt, -1).argsort(descending=True, stable=True).tolist()
                found = examples(rows[n] for n in surest[: int(wrong.sum())])
                of = count if one else len(rows) - count
                pairs.append(Confusion(one, other, int(wrong.sum()), int(wrong.sum()) / of, found))
    pairs.sort(key=lambda pair: (-pair.count, pair.given, pair.tagged))
    wrong_rows = int((given != offered).any(dim=1).sum())
    return Mistakes(wrong_rows, tuple(pairs[:PAIRS]), len(pairs), None, *weakest(scores))


def examples(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The first few, one of each group: three times the same earrings show no more than once."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.group, row)
    return tuple(first.values())[:EXAMPLES]


def matrix(attribute: Attribute, both: Counter[tuple[str, str]], of_given: Counter[str]) -> Matrix | None:
    """None where nothing was mistaken."""
    wrong: Counter[str] = Counter()
    for (one, other), count in both.items():
        if one != other:
            wrong[one] += count
            wrong[other] += count
    if not wrong:
        return None
    chosen = {value for value, _ in most(wrong, MATRIX)}
    # In the order of the taxonomy; values that it lacks come last.
    order = {value: position for position, value in enumerate(attribute.values)}
    values = tuple(sorted(chosen, key=lambda value: (order.get(value, len(order)), value)))
    lines = []
    for one in values:
        counts = [both[one, other] for other in values]
        counts.append(of_given[one] - sum(counts))
        total = max(1, of_given[one])
        lines.append(
            tuple(
                Cell(count, count / total, other == one)
                for count, other in zip(counts, (*values, ""), strict=True)
            )
        )
    return Matrix(values, tuple(of_given[value] for value in values), tuple(lines))


def value_score(value: str, given: int, tagged: int, hits: int) -> ValueScore:
    return ValueScore(
        value=value,
        rows=given,
        tagged=tagged,
        precision=hits / tagged if tagged else None,
        recall=hits / given if given else None,
        f1=2 * hits / (given + tagged) if given + tagged else 0.0,
    )


def weakest(scores: Sequence[ValueScore]) -> tuple[tuple[ValueScore, ...], int]:
    """The values with the least F1, those of more rows first; and how many values have mistakes at all."""
    weak = sorted((s for s in scores if s.f1 < 1), key=lambda score: (score.f1, -score.rows, score.value))
    return tuple(weak[:WEAKEST]), len(weak)


def most(count: Counter[Any], number: int) -> list[tuple[Any, int]]:
    """The most frequent, equals in the order of their names: Counter's own order is that of the rows."""
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))[:number]
