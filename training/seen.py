"""Rows as a model saw them in every pattern of what is present: what calibration is found on and judged by.

N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.calibration import Pattern
from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.answers import owners
from training.conditions import Condition, shown
from training.data import targets_of
from training.evaluation import Logits, evaluate_rows
from training.table import Row

SHOWN: dict[Pattern, Condition] = {"both": "as_is", "text": "without_photos", "photos": "without_text"}


@dataclass(frozen=True)
class Seen:
    """`runs` has the logits of the rows shown so that they have the pattern where they can; `targets` (N,) or (N, V)
    of each attribute; `owner` int (N,) is the group of each row.
    """

    runs: dict[Pattern, Logits]
    targets: tuple[Tensor, ...]
    owner: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64]) -> "Seen":
        """Those at these positions."""
        index = torch.from_numpy(rows)
        return Seen(
            {pattern: part(run, index) for pattern, run in self.runs.items()},
            tuple(target[index] for target in self.targets),
            self.owner[rows],
        )

    def beside(self, other: "Seen") -> "Seen":
        """These rows and then others, of which none shares a group with these: they are of another part."""
        return Seen(
            {pattern: joined(run, other.runs[pattern]) for pattern, run in self.runs.items()},
            below(self.targets, other.targets),
            np.concatenate([self.owner, other.owner + self.owner.max() + 1]),
        )


def see(
    model: FusionTagger,
    rows: Sequence[Row],
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    workers: int,
    *,
    quiet: bool = True,
) -> Seen:
    """Runs the rows three times: whole, without photos and without text."""
    logits = {
        condition: evaluate_rows(model, shown(rows, condition, taxonomy), preprocessor, workers, quiet=quiet)
        for condition in SHOWN.values()
    }
    return seen_in(logits, rows, taxonomy)


def seen_in(logits: Mapping[Condition, Logits], rows: Sequence[Row], taxonomy: Taxonomy) -> Seen:
    """From logits of the rows under the conditions, among them those of SHOWN."""
    runs = {pattern: logits[condition] for pattern, condition in SHOWN.items()}
    return Seen(runs, targets_of(rows, taxonomy), owners(rows)[0])


def shows(of: Sequence[Pattern | None], pattern: Pattern) -> Tensor:
    """bool (N,): the rows that have the pattern, of these; one without photos cannot show "both"."""
    return torch.tensor([found == pattern for found in of], dtype=torch.bool)


def part(run: Logits, index: Tensor) -> Logits:
    return Logits(
        tuple(head[index] for head in run.fused),
        tuple(head[index] for head in run.text_only),
        tuple(head[index] for head in run.photo_only),
        [run.patterns[position] for position in index.tolist()],
    )


def joined(one: Logits, other: Logits) -> Logits:
    return Logits(
        below(one.fused, other.fused),
        below(one.text_only, other.text_only),
        below(one.photo_only, other.photo_only),
        [*one.patterns, *other.patterns],
    )


def below(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(pair) for pair in zip(one, other, strict=True))
