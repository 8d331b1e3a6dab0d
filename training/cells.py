"""What a cell of a table says, whatever csv, jsonl or parquet made of it."""

import re
import unicodedata
from typing import Any

import numpy as np
import pandas as pd

from models import product_table

SEVERAL = "|"  # between the values of a multiple attribute in a csv cell
# 19.99, 1.234,56 €, USD 5, 10 cm, 15 %: maybe with a currency before it, or with a currency or unit after it.
NUMBER = re.compile(
    r"((EUR|USD|GBP|CHF|JPY|CNY|RMB|INR|\w{0,2}[$€£¥₹]) ?)?[-+]?\d+([.,'\u00a0\u202f]\d+)*"
    r"( ?([^\W\d_]{1,5}[²³]?|[$€£¥₹%°″\"']))?"
)
# 2024-06-01, 1/6/2024, 01.06.24, with or without a time.
DATE = re.compile(r"\d{1,4}([-./])\d{1,2}\1\d{1,4}([T ]\d{1,2}:.*)?")


def text(content: Any) -> str:
    """A cell as text; None, NaN, NaT and NULs are nothing."""
    if pd.isna(content):
        return ""
    if isinstance(content, np.floating):
        content = float(str(content))  # 0.2 of 32 bits is not 0.20000000298
    return product_table.cell(content)


def plain(value: str) -> str:
    """A value without blanks around it, each letter composed: two spellings that look the same are one value."""
    return unicodedata.normalize("NFC", value.strip())


def cell(content: Any, several: bool) -> tuple[str, ...]:
    """The values of a cell; of one in a csv only where it holds `several`."""
    if is_list(content):
        items = [text(item) for item in content]
    else:
        items = text(content).split(SEVERAL) if several else [text(content)]
    return tuple(dict.fromkeys(value for item in items if (value := plain(item))))


def photos_in(content: Any) -> tuple[str, ...]:
    """The photos of a cell."""
    names = [text(name) for name in content] if is_list(content) else text(content).split(SEVERAL)
    return tuple(name.strip() for name in names if name.strip())


def is_list(content: Any) -> bool:
    return isinstance(content, list | tuple | np.ndarray)


def is_nested(content: Any) -> bool:
    """Whether it is an object, or a list that holds objects or lists."""
    if is_list(content):
        return any(is_list(item) or isinstance(item, dict) for item in content)
    return isinstance(content, dict)


def is_number(value: str) -> bool:
    """Also with a currency or a unit, and dates: what is measured, not chosen."""
    return any(form.fullmatch(value) for form in (NUMBER, DATE))
