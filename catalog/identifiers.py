"""Ids: a prefix that says what they name, and a UUIDv7, which sorts by the time it was made."""

import uuid_utils


def new_id(prefix: str) -> str:
    """`new_id("job")` gives e.g. `job_019ab3…` (32 hexadecimal digits)."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
