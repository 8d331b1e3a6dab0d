"""The lines that a benchmark adds to the one table of `make bench`: `headline` of its document, a list of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Headline = dict[str, Any]


def headline(
    figure: str,
    value: float,
    *,
    unit: str = "",
    each: Sequence[float] = (),
    goal: float | None = None,
    at_most: bool = False,
) -> Headline:
    """One line of the table: a median, of `each` round, and the goal that it should reach (or stay below)."""
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "range": [min(each), max(each)] if each else None,
        "goal": goal,
        "goal_is": None if goal is None else "at most" if at_most else "at least",
    }
