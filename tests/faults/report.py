"""What each fault came to: a line of the table at the end, and of the JSON file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from tests.faults.invariant import Count

PROPERTY = "fault"  # of a test, which the process that sums up gets from all that ran some


@dataclass(frozen=True)
class Line:
    fault: str
    count: Count
    recovery_s: tuple[float, ...]  # one for each time it struck


@dataclass
class Report:
    lines: list[Line] = field(default_factory=list)

    @classmethod
    def of(cls, tests: Iterable[pytest.TestReport]) -> Self:
        """What the tests wrote down as properties."""
        return cls(
            [
                Line(line["fault"], Count(**line["count"]), tuple(line["recovery_s"]))
                for test in tests
                for name, line in test.user_properties
                if name == PROPERTY
            ]
        )

    def table(self) -> str:
        titles = ("accepted", "succeeded", "failed", "cancelled", "lost", "doubled")
        rows = [f"{'fault':<44}" + "".join(f"{title:>11}" for title in titles) + "   recovery, s"]
        for line in self.lines:
            figures = "".join(f"{figure:>11}" for figure in asdict(line.count).values())
            rows.append(f"{line.fault:<44}{figures}   {_spread(line.recovery_s)}")
        totals = [sum(asdict(line.count)[title] for line in self.lines) for title in titles]
        rows.append(f"{'all':<44}" + "".join(f"{figure:>11}" for figure in totals))
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        document: list[dict[str, Any]] = [
            {"fault": line.fault, **asdict(line.count), "recovery_s": [round(s, 2) for s in line.recovery_s]}
            for line in self.lines
        ]
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    if len(seconds) == 1:
        return f"{seconds[0]:.1f}"
    return f"median {statistics.median(seconds):.1f}, longest {max(seconds):.1f} of {len(seconds)}"
