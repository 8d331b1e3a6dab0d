"""Reads a catalogue: a csv, jsonl or parquet table in the form of a Hugging Face ImageFolder.

`file_name` (or `file_names`, a list), `title`, `description`, optional `id` and `group`; every other column
is an attribute unless they are named. An empty cell is a missing label. Knows no pixels and no tokens.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.taxonomy import Attribute, Taxonomy
from training.declared import Declared
from training.errors import DataError

RESERVED = ("file_name", "file_names", "id", "title", "description", "group")
SEVERAL = "|"  # between the values of a multiple attribute in a csv cell
# A column where more than half of the filled cells are unique is an identifier, a price or free text.
MOST_UNIQUE = 0.5
# So few different values are a choice however short the table is.
FEW_VALUES = 10
# Sizes and years are numbers that people choose from; a longer scale is a price or a weight.
MOST_NUMBERS = 30


@dataclass(frozen=True)
class Row:
    """One product of the table; `values` has the cell of each candidate attribute, () where it is empty."""

    id: str
    title: str
    description: str
    photos: tuple[Path, ...]
    group: str
    values: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """`columns` are the attributes' names, `named` those that somebody asked for; `multiple` those that take
    several values; `skipped` says why a column is no attribute."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    named: frozenset[str]
    multiple: frozenset[str]
    skipped: dict[str, str]


def read_table(
    path: Path,
    attributes: Sequence[str] = (),
    multiple: Sequence[str] = (),
    optional: bool = False,
    among: Sequence[str] = (),
) -> Table:
    """Raises DataError naming the row or column at fault. Photos must exist; they are not opened.

    `attributes` names all there are; without them `among` names some that are attributes for sure.

    With `optional` a named attribute may be missing from the table, as when a checkpoint is measured on
    part of its taxonomy.
    """
    frame = read_frame(path)
    if optional:
        attributes = [name for name in attributes if name in frame.columns]
        multiple = [name for name in multiple if name in frame.columns]
        if not attributes:
            raise DataError(
                f"{path} has none of the attributes to measure; its columns are {', '.join(frame.columns)}"
            )
    if "title" not in frame.columns and not {"file_name", "file_names"} & set(frame.columns):
        raise DataError(
            f"{path} has neither a title nor a file_name column; its columns are {', '.join(frame.columns)}"
        )
    unknown = [
        name for name in (*attributes, *multiple, *among) if name not in frame.columns or name in RESERVED
    ]
    if unknown:
        raise DataError(
            f"{path} has no attribute column {unknown[0]!r}; its columns are {', '.join(frame.columns)}"
        )
    columns = list(attributes) or [name for name in frame.columns if name not in RESERVED]
    several = set(multiple) | {name for name in columns if frame[name].map(lambda cell: is_list(cell)).any()}
    rows = read_rows(path, frame, columns, several)
    named = frozenset([*attributes, *among])
    skipped = {name: why for name in columns if name not in named and (why := not_an_attribute(rows, name))}
    kept = tuple(name for name in columns if name not in skipped)
    if not kept:
        raise DataError(f"{path} has no usable attribute column: {skipped or 'name some with --attributes'}")
    return Table(rows, kept, named, frozenset(several & set(kept)), skipped)


def read_frame(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            # keep_default_na=False: "NA" and "None" are values of some attributes (usage, season), not holes
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            if not isinstance(frame.index, pd.RangeIndex):
                # pandas takes the first cells of such a table for names of its rows, and shifts the others.
                raise DataError(
                    f"{path}, row 1: more cells than the {len(frame.columns)} columns of the header; put quotes around "
                    "a cell that holds a comma, and end no row in one"
                )
        elif path.suffix in {".jsonl", ".ndjson"}:
            with path.open(encoding="utf-8-sig") as lines:
                frame = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        elif path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            raise DataError(f"{path}: a table is a .csv, .jsonl or .parquet file")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    return frame.rename(columns=str)


def read_rows(path: Path, frame: pd.DataFrame, columns: Sequence[str], several: set[str]) -> tuple[Row, ...]:
    """The rows with the cells of these columns, which may be none. Raises DataError."""
    records = [
        {str(name): content for name, content in record.items()} for record in frame.to_dict("records")
    ]
    rows = [
        read_row(path, number, record, columns, several) for number, record in enumerate(records, start=1)
    ]
    if not rows:
        raise DataError(f"{path} has no rows")
    missing = [photo for row in rows for photo in row.photos if not is_there(photo)]
    if missing:
        raise DataError(f"{path}: {len(missing)} photos are missing, the first is {missing[0]}")
    return tuple(rows)


def read_row(
    path: Path, number: int, record: dict[str, Any], columns: Sequence[str], several: set[str]
) -> Row:
    title, description = text(record.get("title")), text(record.get("description"))
    files = named_in(record.get("file_names")) or named_in(record.get("file_name"))
    photos = tuple(path.parent / name for name in files)
    if not (title or description or photos):
        raise DataError(f"{path}, row {number}: neither a title, a description nor a photo")
    values = {name: cell(record.get(name), name in several) for name in columns}
    return Row(
        id=text(record.get("id")) or str(number),
        title=title,
        description=description,
        photos=photos,
        group=text(record.get("group")) or group_of(title, description, files),
        values=values,
    )


def named_in(content: Any) -> tuple[str, ...]:
    """The photos of a cell."""
    names = [text(name) for name in content] if is_list(content) else text(content).split(SEVERAL)
    return tuple(name.strip() for name in names if name.strip())


def is_there(photo: Path) -> bool:
    """Also False of a name that no file can have, such as a long address."""
    try:
        return photo.is_file()
    except OSError:
        return False


def group_of(title: str, description: str, files: Sequence[str]) -> str:
    """What makes two products the same. By what the table says alone, never by where it or the row stands: every later
    table has to be split alike.
    """
    return normalised(title) or SEVERAL.join(files) or normalised(description) or title or description


def cell(content: Any, several: bool) -> tuple[str, ...]:
    if is_list(content):
        return tuple(dict.fromkeys(value for item in content if (value := text(item))))
    if several:
        return tuple(dict.fromkeys(value for item in text(content).split(SEVERAL) if (value := item.strip())))
    return (text(content),) if text(content) else ()


def text(content: Any) -> str:
    """A cell as text; None, NaN and NULs are nothing."""
    if content is None or (isinstance(content, float) and math.isnan(content)) or content is pd.NA:
        return ""
    if isinstance(content, float) and content.is_integer():
        content = int(content)
    return str(content).replace("\0", "").strip()


def is_list(content: Any) -> bool:
    return isinstance(content, list | tuple | np.ndarray)


def normalised(title: str) -> str:
    return re.sub(r"\W+", " ", title).strip().lower()


def not_an_attribute(rows: Sequence[Row], name: str) -> str:
    """Why a column that nobody named is left out, or an empty string."""
    cells = [row.values[name] for row in rows if row.values[name]]
    found = Counter(value for values in cells for value in values)
    if len(found) < 2:
        return "fewer than two different values"
    if len(found) > max(FEW_VALUES, MOST_UNIQUE * len(cells)):
        return f"{len(found)} different values in {len(cells)} filled cells: an identifier or free text"
    if len(found) > MOST_NUMBERS and all(is_number(value) for value in found):
        return f"{len(found)} different numbers: a measure, not a choice"
    return ""


def is_number(value: str) -> bool:
    return re.fullmatch(r"[-+]?\d+([.,]\d+)?", value) is not None


def make_taxonomy(
    table: Table, training_rows: Sequence[Row], declared: Declared | None = None
) -> tuple[Taxonomy, dict[str, str]]:
    """The attributes with the values that the training rows hold, most frequent first; and why a column
    fell out. What is declared has its own list of values, and its scope.

    Raises DataError where a column that was asked for, or every column, has nothing to choose from.
    """
    declared = declared or Declared()
    attributes, skipped = [], {}
    for name in table.columns:
        count = Counter(value for row in training_rows for value in row.values[name])
        if len(count) >= 2:
            found = [value for value, _ in count.most_common()]
            # A value that a scope names is one however rare it is.
            values = declared.values.get(name) or dict.fromkeys(
                [*found, *declared.scope_values.get(name, ())]
            )
            attributes.append(
                Attribute(name, tuple(values), name in table.multiple, declared.scopes.get(name))
            )
        else:
            skipped[name] = f"{len(count)} values in the rows to train on, at least two are needed"
    asked = [name for name in skipped if name in table.named]
    if asked or not attributes:
        name = (asked or list(skipped))[0]
        raise DataError(f"attribute {name!r} has {skipped[name]}")
    return Taxonomy(tuple(attributes)), skipped
