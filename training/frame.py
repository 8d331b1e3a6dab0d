"""A table's file as it stands: a csv, jsonl or parquet file to a frame with a name for each column."""

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from models.errors import UnreadableTable
from models.product_table import check_header, encoding_of, json_records
from training.errors import DataError


def read_frame(path: Path) -> pd.DataFrame:
    """Cells of a csv are texts. Raises DataError."""
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            check_header(path)
            # keep_default_na=False: "NA" and "None" are values of some attributes (usage, season), not holes
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            if not isinstance(frame.index, pd.RangeIndex):
                # pandas takes the first cells of such a table for names of its rows, and shifts the others.
                raise DataError(
                    f"{path}, row 1: more cells than the {len(frame.columns)} columns of the header; put quotes around "
                    "a cell that holds a comma, and end no row in one"
                )
        elif kind in {".jsonl", ".ndjson"}:
            frame = pd.DataFrame(list(json_records(path)))
        elif kind == ".parquet":
            frame = pd.read_parquet(path)
            if not isinstance(frame.index, pd.RangeIndex):
                frame = frame.reset_index()  # a column of the file all the same
            for name in frame.select_dtypes("category"):
                frame[name] = frame[name].astype(object)
            # In 64 bits 0.2 of 32 would be 0.20000000298.
            for name in frame.select_dtypes(["float16", "float32"]):
                frame[name] = frame[name].astype(str).astype("float64")
        else:
            raise DataError(f"{path}: a table is a .csv, .jsonl or .parquet file")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as a table: {encoding_of(path)}") from error
    except UnreadableTable as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    frame.columns = pd.Index(named_once(map(str, frame.columns)))
    return frame


def named_once(names: Iterable[str]) -> list[str]:
    """The names without blanks around them; the second of one name is NAME.1, as pandas has it."""
    found: list[str] = []
    for name in names:
        plain = name.strip() or name
        number, free = 0, plain
        while free in found:
            number += 1
            free = f"{plain}.{number}"
        found.append(free)
    return found
