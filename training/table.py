"""Reads a catalogue: a csv, jsonl or parquet table in the form of a Hugging Face ImageFolder.

`file_name` (or `file_names`, a list), `title`, `description`, optional `id` and `group`; every other column
is an attribute unless they are named. An empty cell is a missing label. Knows no pixels and no tokens.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from models.taxonomy import Attribute, Taxonomy
from training.cells import SEVERAL, cell, is_list, is_nested, is_number, photos_in, text
from training.declared import Declared
from training.errors import DataError
from training.frame import read_frame

RESERVED = ("file_name", "file_names", "id", "title", "description", "group")
TEXTS = ("id", "title", "description", "group")  # one for each product
# A column where more than half of the filled cells are unique is an identifier, a price or free text.
MOST_UNIQUE = 0.5
# So few different values are a choice however short the table is.
FEW_VALUES = 10
# Sizes and years are numbers that people choose from; a longer scale is a price or a weight.
MOST_NUMBERS = 30


@dataclass(frozen=True)
class Row:
    """One product of the table; `values` has the cell of each candidate attribute, () where it is empty; `taught` what
    teachers say of it, see `training/distillation.py`.
    """

    id: str
    title: str
    description: str
    photos: tuple[Path, ...]
    group: str
    values: dict[str, tuple[str, ...]]
    taught: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Table:
    """`columns` are the attributes' names, `named` those that somebody asked for; `multiple` those that take
    several values, and the skipped columns with such cells; `skipped` says why a column is no attribute."""

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
        if not set(attributes) & set(frame.columns):
            raise DataError(
                f"{path} has none of the attributes to measure, {', '.join(attributes)}; "
                f"its columns are {', '.join(frame.columns)}"
            )
        attributes = [name for name in attributes if name in frame.columns]
        multiple = [name for name in multiple if name in frame.columns]
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
    named = frozenset([*attributes, *among])
    columns = list(dict.fromkeys(attributes)) or [name for name in frame.columns if name not in RESERVED]
    skipped = {name: why for name in columns if name not in named and (why := no_column(frame, name))}
    columns = [name for name in columns if name not in skipped]
    several = set(multiple) | {name for name in columns if frame[name].map(lambda cell: is_list(cell)).any()}
    rows = read_rows(path, frame, columns, several)
    skipped |= {name: why for name in columns if name not in named and (why := not_an_attribute(rows, name))}
    kept = tuple(name for name in columns if name not in skipped)
    if not kept:
        raise DataError(f"{path} has no usable attribute column: {skipped or 'name some with --attributes'}")
    return Table(rows, kept, named, frozenset(several & set(columns)), skipped)


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
    for name in (*RESERVED, *columns):
        content = record.get(name)
        if is_nested(content) or (name in TEXTS and is_list(content)):
            raise DataError(f"{path}, row {number}: {name!r} cannot be {content!r}")
    title, description = text(record.get("title")), text(record.get("description"))
    files = photos_in(record.get("file_names")) or photos_in(record.get("file_name"))
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


def normalised(title: str) -> str:
    """One title is written alike whatever its width of letters, composed accents and HTML escapes."""
    return re.sub(r"\W+", " ", unicodedata.normalize("NFKC", html.unescape(title))).strip().lower()


def no_column(frame: pd.DataFrame, name: str) -> str:
    """Why a column that nobody named cannot be taken as it stands, or an empty string."""
    first, dot, number = name.rpartition(".")
    if dot and number.isdecimal() and first in frame.columns:
        return f"the header has {first!r} more than once"
    if frame[name].map(is_nested).any():
        return "its cells hold objects or lists of lists: give each a column of its own"
    return ""


def not_an_attribute(rows: Sequence[Row], name: str) -> str:
    """Why a column that nobody named is left out, or an empty string."""
    cells = [row.values[name] for row in rows if row.values[name]]
    found = Counter(value for values in cells for value in values)
    if len(found) < 2:
        return "fewer than two different values"
    if len(found) > max(FEW_VALUES, MOST_UNIQUE * len(cells)):
        return f"{len(found)} different values in {len(cells)} filled cells: an identifier or free text"
    if len(found) > MOST_NUMBERS and all(is_number(value) for value in found):
        return f"{len(found)} different numbers or dates: a measure, not a choice"
    return ""


def make_taxonomy(
    table: Table,
    training_rows: Sequence[Row],
    declared: Declared | None = None,
    known: Collection[str] = (),
) -> tuple[Taxonomy, dict[str, str]]:
    """The attributes with the values that the training rows hold, most frequent first; and why a column
    fell out. What is declared has its own list of values, and its scope.

    Raises DataError where a column that was asked for, or every column, has nothing to choose from; those that are
    `known` to an older checkpoint have its values.
    """
    declared = declared or Declared()
    attributes, skipped = [], {}
    for name in table.columns:
        found = {value for row in training_rows for value in row.values[name]}
        if len(found) >= 2:
            values = values_of(name, training_rows, declared)
            attributes.append(Attribute(name, values, name in table.multiple, declared.scopes.get(name)))
        else:
            skipped[name] = f"{len(found)} values in the rows to train on, at least two are needed"
    asked = [name for name in skipped if name in table.named and name not in known]
    if asked or not attributes:
        name = (asked or list(skipped))[0]
        raise DataError(f"attribute {name!r} has {skipped[name]}")
    return Taxonomy(tuple(attributes)), skipped


def values_of(name: str, rows: Sequence[Row], declared: Declared) -> tuple[str, ...]:
    """Those that are declared, or else those of the rows, most frequent first."""
    count = Counter(value for row in rows for value in row.values.get(name, ()))
    found = [value for value, _ in count.most_common()]
    # A value that a scope names is one however rare it is.
    return tuple(declared.values.get(name) or dict.fromkeys([*found, *declared.scope_values.get(name, ())]))
