"""Reads products from a shop's own table, csv or JSON Lines: `title`, `description`, and photos by `file_name` or
`file_names`, relative to the table.

The columns are those of a table to train on; it knows nothing of the others.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UnreadableTable
from models.product import Product

SEVERAL = "|"  # between photos in one cell


@dataclass(frozen=True)
class Listed:
    """One row; its photos are not opened yet."""

    title: str
    description: str
    photos: tuple[Path, ...]

    def product(self) -> Product:
        """Raises UnreadableTable where a photo is missing."""
        try:
            return Product(self.title, self.description, tuple(photo.read_bytes() for photo in self.photos))
        except OSError as error:
            raise UnreadableTable(f"a photo of the table cannot be read: {error}") from error


def read_products(path: Path) -> list[Listed]:
    """Those rows that have a title, a description or a photo. Raises UnreadableTable."""
    if path.suffix not in RECORDS:
        raise UnreadableTable(f"{path} is none of {', '.join(RECORDS)}")
    try:
        rows = [listed(path, record) for record in RECORDS[path.suffix](path)]
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise UnreadableTable(f"{path} cannot be read: {error}") from error
    products = [row for row in rows if row.title or row.description or row.photos]
    if not products:
        raise UnreadableTable(f"{path} has no products: it needs a title, description or file_name column")
    return products


def listed(path: Path, record: dict[str, Any]) -> Listed:
    names = record.get("file_names") or record.get("file_name") or ""
    files = names if isinstance(names, list) else str(names).split(SEVERAL)
    photos = tuple(path.parent / str(name).strip() for name in files if str(name).strip())
    return Listed(cell(record.get("title")), cell(record.get("description")), photos)


def cell(content: Any) -> str:
    return "" if content is None else str(content).strip()


def csv_records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream)


def json_records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            record = json.loads(line) if line.strip() else {}
            if not isinstance(record, dict):
                raise UnreadableTable(f"{path}, line {number}: not a JSON object")
            yield record


RECORDS = {".csv": csv_records, ".jsonl": json_records, ".ndjson": json_records}
