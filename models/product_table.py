"""Reads products from a shop's own table, csv, JSON Lines or parquet: `title`, `description`, and photos by
`file_name` or `file_names`, relative to the table.

The columns are those of a table to train on; it knows nothing of the others.
"""

import codecs
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ExtraMissing, UnreadableTable
from models.product import Product

SEVERAL = "|"  # between photos in one cell
COLUMNS = ("title", "description", "file_name", "file_names")
SEPARATORS = {";": "semicolons", "\t": "tabs"}  # of spreadsheets, where they write no commas


@dataclass(frozen=True)
class Listed:
    """One row; its photos are not opened yet."""

    title: str
    description: str
    photos: tuple[Path, ...]

    @property
    def has_text(self) -> bool:
        return bool(self.title or self.description)

    def product(self) -> Product:
        """Raises UnreadableTable where a photo is missing."""
        try:
            return Product(self.title, self.description, tuple(photo.read_bytes() for photo in self.photos))
        except OSError as error:
            raise UnreadableTable(f"a photo of the table cannot be read: {error}") from error


def read_products(path: Path) -> list[Listed]:
    """Those rows that have a title, a description or a photo. Raises UnreadableTable and ExtraMissing."""
    kind = path.suffix.lower()
    if kind not in RECORDS:
        raise UnreadableTable(f"{path} is none of {', '.join(RECORDS)}")
    try:
        rows = [listed(path, record) for record in RECORDS[kind](path)]
    except UnicodeDecodeError as error:
        raise UnreadableTable(f"{path} cannot be read: {encoding_of(path)}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableTable(f"{path} cannot be read: {error}") from error
    products = [row for row in rows if row.title or row.description or row.photos]
    if not products:
        raise UnreadableTable(f"{path} has no products: it needs a title, description or file_name column")
    return products


def listed(path: Path, record: dict[str, Any]) -> Listed:
    names = record.get("file_names") or record.get("file_name") or ""
    files = [cell(name) for name in names] if isinstance(names, list) else cell(names).split(SEVERAL)
    photos = tuple(path.parent / name.strip() for name in files if name.strip())
    return Listed(cell(record.get("title")), cell(record.get("description")), photos)


def cell(content: Any) -> str:
    """As text: what json and parquet write for an empty cell may be a NaN, and for a whole number a float."""
    if content is None or content != content:
        return ""
    if isinstance(content, float) and content.is_integer():
        content = int(content)
    return str(content).replace("\0", "").strip()


def csv_records(path: Path) -> Iterator[dict[str, Any]]:
    check_header(path)
    csv.field_size_limit(sys.maxsize)  # a description may be longer than 128 kB
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = [name.strip() for name in next(csv.reader(stream), [])]
        yield from csv.DictReader(stream, header)


def check_header(path: Path) -> None:
    """Raises UnreadableTable where something else than a comma stands between the columns of a csv."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        line = stream.readline()
    if not known(line, ","):
        for separator, name in SEPARATORS.items():
            if known(line, separator):
                raise UnreadableTable(f"{path} is separated by {name}: save it with commas, in UTF-8")


def known(header: str, separator: str) -> bool:
    """Whether a column of ours stands in it."""
    return any(name.strip() in COLUMNS for name in next(csv.reader([header], delimiter=separator), []))


def encoding_of(path: Path) -> str:
    """What is to be done with a table that is not in UTF-8."""
    with path.open("rb") as stream:
        utf16 = stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    found = "it is in UTF-16" if utf16 else "it is in another encoding than UTF-8"
    return f"{found}: save it in UTF-8 (in a spreadsheet as “CSV UTF-8”)"


def json_records(path: Path) -> Iterator[dict[str, Any]]:
    """Raises UnreadableTable naming the line at fault."""
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.rstrip())
            except json.JSONDecodeError as error:
                at = f"line {number}, column {error.colno}"
                raise UnreadableTable(f"{path} cannot be read as a table: {at}: {error.msg}") from error
            if "\\u" in line and not encodable(record):
                raise UnreadableTable(
                    f"{path} cannot be read as a table: line {number}: a \\u escape is half of a character, as where a "
                    "text was cut within an emoji: take it out"
                )
            if not isinstance(record, dict):
                raise UnreadableTable(f"{path}, line {number}: not a JSON object; each line is one product")
            yield record


def encodable(record: Any) -> bool:
    """Whether all its texts can be written: an escape may name one half of a surrogate pair alone."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def parquet_records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ExtraMissing(
            "a parquet table needs pyarrow, which is not installed: pip install 'tagsmith[train]', or give a csv"
        ) from error
    there = [name for name in parquet.read_schema(path).names if name in COLUMNS]
    yield from parquet.read_table(path, columns=there).to_pylist()


RECORDS = {
    ".csv": csv_records,
    ".jsonl": json_records,
    ".ndjson": json_records,
    ".parquet": parquet_records,
}
