"""Ids in addresses. What does not look like an id names nothing, and never reaches the database."""

from __future__ import annotations

import re

from catalog.errors import NotFound

JOB = ("job", re.compile(r"job_[0-9a-f]{32}"))
PRODUCT = ("product", re.compile(r"prd_[0-9a-f]{32}"))


def checked(kind: tuple[str, re.Pattern[str]], given: str) -> str:
    what, form = kind
    if form.fullmatch(given) is None:
        raise NotFound(what, given[:40].encode("ascii", "replace").decode("ascii"))
    return given
