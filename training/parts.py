"""The rows of a run by the part of the split that they fall into, and what makes figures of those parts say little.

Groups are as the table has them: another rule would split every older table anew.
"""

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.taxonomy import Taxonomy
from training.errors import DataError
from training.readable import digest_of
from training.recipe import SplitSection
from training.split import PARTS, Part, part_of
from training.table import Row, normalised

# Groups of a part under which its figures are about those few; of so few rows that is so anyhow.
FEW = 20
# A group of more than this share of all rows weighs too much in the part that it falls into.
LUMP = 0.05
NAMED = 12  # of the attributes that are learned
ENOUGH_TO_CALIBRATE_ON = 200  # products, from which a target of 95 % is usually promised
MOST_TO_CALIBRATE_ON = 0.3  # of the rows; a larger share would cost the training too much


def split_rows(data: Path, rows: Sequence[Row], split: SplitSection) -> dict[Part, list[Row]]:
    """Says where they are few groups. Raises DataError where a part is empty."""
    parts: dict[Part, list[Row]] = {part: [] for part in PARTS}
    for row in rows:
        parts[part_of(row.group, split)].append(row)
    lumps = lumpy(rows, split)
    for part, found in parts.items():
        if not found:
            why = lumps or "give more rows or a larger share"
            raise DataError(f"{data}: none of {len(rows)} rows falls into the {part} part: {why}")
    if lumps:
        print(lumps, file=sys.stderr)
    return parts


def lumpy(rows: Sequence[Row], split: SplitSection) -> str:
    """Why more rows of the same kind would not help, or an empty string."""
    groups = Counter(row.group for row in rows)
    largest = max(groups.values())
    least = min(split.validation, split.calibration, split.test)
    few = least * len(groups) < FEW <= least * len(rows) and 2 * len(groups) <= len(rows)
    if not few and largest <= max(FEW, LUMP * len(rows)):
        return ""
    return (
        f"{len(rows)} rows are only {len(groups)} groups, the largest of {largest} rows, and a group is never split: "
        "rows of one title are one, unless the table has a `group` column, such as the id"
    )


def warn_of_few_to_calibrate_on(rows: Sequence[Row], split: SplitSection) -> None:
    """For the start of a run, which takes half an hour, and again for its end where something was not promised."""
    if len(rows) >= ENOUGH_TO_CALIBRATE_ON:
        return
    share = math.ceil(100 * split.calibration * ENOUGH_TO_CALIBRATE_ON / len(rows)) / 100
    wider = f", or a larger share (--set split.calibration={share})" if share <= MOST_TO_CALIBRATE_ON else ""
    print(
        f"{len(rows)} products are few to calibrate on and few or no tags will be `auto`, {ENOUGH_TO_CALIBRATE_ON} "
        f"usually do: give more{wider}",
        file=sys.stderr,
    )


def warn_of_shared_photos(parts: Mapping[Part, Sequence[Row]], digests: Mapping[Path, bytes]) -> None:
    """By what the files hold, under whatever name; `digests` has that of each photo."""
    parts_of = defaultdict(set)
    for part, rows in parts.items():
        for row in rows:
            for photo in row.photos:
                parts_of[digests[photo]].add(part)
    shared = sum(len(found) > 1 for found in parts_of.values())
    if shared:
        print(
            f"{shared} of {len(parts_of)} photos are in more than one part, so figures and promises are of photos that "
            "training saw: give a `group` column in which the products of one photo have the same group",
            file=sys.stderr,
        )


def warn_of_shared_products(added: Sequence[Row], measured: Sequence[Row]) -> None:
    """Of products of other tables: where those group by another rule, one product is of two groups."""
    titles = {normalised(row.title) for row in measured} - {""}
    photos = {digest_of(photo) for row in measured for photo in row.photos} if added else set()
    shared = sum(
        normalised(row.title) in titles or any(digest_of(photo) in photos for photo in row.photos)
        for row in added
    )
    if shared:
        print(
            f"{shared} products of other tables have the title or a photo of one that this run is measured on, so "
            "figures and promises may be of products that training saw: give all tables a `group` column of the same "
            "rule, or none",
            file=sys.stderr,
        )


def learned(taxonomy: Taxonomy) -> str:
    """One line of what a run is about to learn."""
    names = [f"{attribute.name} ({len(attribute.values)} values)" for attribute in taxonomy]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return "learns " + ", ".join([*names[:NAMED], *more])
