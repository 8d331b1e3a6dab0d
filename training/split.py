"""Which part of the run a row belongs to: a hash of its group, so that no group straddles a split.

The rule needs no list: any later table, in any order, is split alike by seed and shares.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

from models.checkpoint import Checkpoint
from training.errors import DataError
from training.recipe import SplitSection
from training.table import Row

Part = Literal["train", "validation", "calibration", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
MEASURED_ON: tuple[Part, ...] = ("validation", "calibration", "test")


def part_of(group: str, split: SplitSection) -> Part:
    digest = hashlib.sha256(f"{split.seed}\0{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    if position < split.test:
        return "test"
    if position < split.test + split.calibration:
        return "calibration"
    if position < split.test + split.calibration + split.validation:
        return "validation"
    return "train"


def split_of(checkpoint: Checkpoint) -> SplitSection:
    """The rule the checkpoint was made by. Raises DataError where its metrics name none."""
    if "split" not in checkpoint.metrics:
        raise DataError(f"checkpoint {checkpoint.name!r} names no split, so its parts are not known")
    return SplitSection(**{key: of for key, of in checkpoint.metrics["split"].items() if key != "rule"})


def rows_of(rows: Iterable[Row], part: Part, split: SplitSection) -> list[Row]:
    return [row for row in rows if part_of(row.group, split) == part]


def rule(split: SplitSection) -> str:
    """The split in words, for the model card."""
    return (
        f"by the hash of the product's group with seed {split.seed}: {split.test:.0%} test, "
        f"{split.calibration:.0%} calibration, {split.validation:.0%} validation, the rest training; "
        "no group is in two parts"
    )
