"""Rows as tensors: examples with their targets, augmented for training and plain for measuring.

Legend: B products, V values of an attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.errors import UnreadablePhoto
from models.fusion import Batch, collate
from models.preprocessing import Preprocessor, decode
from models.product import Example
from models.taxonomy import Attribute, Taxonomy
from training.augment import Augmenter
from training.errors import DataError
from training.scope import within_scope
from training.table import Row

MISSING = -100  # what torch's cross-entropy ignores
# A value that the taxonomy does not hold: nothing to learn from, but an answer that can only be wrong. The
# first unknown value of an attribute is UNKNOWN, the next one UNKNOWN - 1 and so on.
UNKNOWN = -1000


@dataclass(frozen=True)
class Labelled:
    """A batch and, for each attribute, its targets: int64 (B,) with MISSING and UNKNOWN, or float (B, V)
    with NaN rows; and what teachers say, float (B, V), or None.
    """

    batch: Batch
    targets: tuple[Tensor, ...]
    taught: tuple[Tensor | None, ...]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Labelled":
        moved = tuple(target.to(device, non_blocking=non_blocking) for target in self.targets)
        taught = tuple(of if of is None else of.to(device, non_blocking=non_blocking) for of in self.taught)
        return Labelled(self.batch.to(device, non_blocking), moved, taught)


def targets_of(rows: Sequence[Row], taxonomy: Taxonomy) -> tuple[Tensor, ...]:
    """One tensor for each attribute; an attribute that the table lacks is missing in every row, and one with a
    scope in every row that says of its parent another value.
    """
    rows, _ = within_scope(rows, taxonomy.scopes)
    return tuple(
        torch.from_numpy((several if attribute.multiple else single)(attribute, rows))
        for attribute in taxonomy
    )


def taught_of(rows: Sequence[Row], taxonomy: Taxonomy) -> tuple[Tensor | None, ...]:
    """Float (N, V) of each attribute that teachers know, otherwise None."""
    said = [row.taught for row in rows if row.taught is not None]
    if not said:
        return (None,) * len(taxonomy.attributes)
    columns = torch.stack(said).split(taxonomy.sizes, dim=1)
    return tuple(None if of.isnan().any() else of for of in columns)


def single(attribute: Attribute, rows: Sequence[Row]) -> np.ndarray:
    """int64 (B,)."""
    index = {value: position for position, value in enumerate(attribute.values)}
    unknown: dict[str, int] = {}
    targets = np.full(len(rows), MISSING, dtype=np.int64)
    for position, row in enumerate(rows):
        for value in row.values.get(attribute.name, ())[:1]:
            targets[position] = (
                index[value] if value in index else unknown.setdefault(value, UNKNOWN - len(unknown))
            )
    return targets


def several(attribute: Attribute, rows: Sequence[Row]) -> np.ndarray:
    """float32 (B, V); rows without a label are NaN. Where the taxonomy holds none of a row's values, every value that
    is offered is wrong.
    """
    index = {value: position for position, value in enumerate(attribute.values)}
    targets = np.zeros((len(rows), len(attribute.values)), dtype=np.float32)
    for position, row in enumerate(rows):
        labels = row.values.get(attribute.name, ())
        targets[position, [index[value] for value in labels if value in index]] = 1
        if not labels:
            targets[position] = np.nan
    return targets


class Products(Dataset[tuple[Example, int]]):
    """Examples of rows with their position; augmented when there is an augmenter, anew in every epoch."""

    def __init__(
        self,
        rows: Sequence[Row],
        preprocessor: Preprocessor,
        augmenter: Augmenter | None = None,
        seed: int = 0,
    ) -> None:
        self.rows = rows
        self.preprocessor = preprocessor
        self.augmenter = augmenter
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[Example, int]:
        row = self.rows[index]
        random = np.random.default_rng((self.seed, self.epoch, index))
        title, description, hide_photos = row.title, row.description, False
        if self.augmenter is not None:
            has_text = bool(title or description)
            hide_text, hide_photos = self.augmenter.dropped(has_text and bool(row.photos), random)
            title, description = (
                ("", "") if hide_text else self.augmenter.texts(title, description, row.values, random)
            )
        token_ids, type_ids = self.preprocessor.tokens(title, description)
        photos = () if hide_photos else row.photos[: self.preprocessor.config.max_photos]
        pixels = [self.pixels(path, random) for path in photos]
        return Example(token_ids, type_ids, self.preprocessor.stack(pixels)), index

    def pixels(self, path: Path, random: np.random.Generator) -> np.ndarray:
        try:
            content = path.read_bytes()
            if self.augmenter is None:
                return self.preprocessor.photo(content)
            picture, box = self.augmenter.photo(decode(content), random)
        except (OSError, UnreadablePhoto) as error:
            raise DataError(f"{path}: {error}") from error
        return self.preprocessor.pixels(picture, box)


class Collator:
    """Batches of Labelled; picklable, so that loader processes can carry it."""

    def __init__(self, targets: tuple[Tensor, ...], taught: tuple[Tensor | None, ...] = ()) -> None:
        self.targets = targets
        self.taught = taught

    def __call__(self, items: list[tuple[Example, int]]) -> Labelled:
        positions = torch.tensor([index for _, index in items])
        return Labelled(
            collate([example for example, _ in items]),
            tuple(of[positions] for of in self.targets),
            tuple(of if of is None else of[positions] for of in self.taught),
        )
