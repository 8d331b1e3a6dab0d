"""One fault, as the test sees it that causes it: when it struck, when the work went on, what was lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from catalog.database import transaction
from tests.faults import invariant
from tests.faults.installation import Installation, wait_for
from tests.faults.invariant import Count
from tests.faults.report import Line, Report


@dataclass(frozen=True)
class Strike:
    """The moment a fault struck, and what was in the workers' hands then."""

    at: float
    database_time: Any
    held: list[str]


class Fault:
    """Told by the test that causes it, and added to the report at its end."""

    def __init__(self, installation: Installation, report: Report) -> None:
        self._installation = installation
        self._report = report
        self._recovery_s: list[float] = []

    @property
    def recovery_s(self) -> tuple[float, ...]:
        return tuple(self._recovery_s)

    def strikes(self) -> Strike:
        """Call right before the fault."""
        with transaction(self._installation.engine) as session:
            now = session.execute(text("SELECT clock_timestamp()")).scalar_one()
            held = session.execute(text("SELECT id FROM jobs WHERE status = 'running'")).scalars()
            return Strike(time.monotonic(), now, list(held))

    def recovers(self, strike: Strike) -> float:
        """Wait until all that was held has ended and something accepted afterwards has been tagged; seconds since."""

        def recovered() -> bool:
            works = self._installation.query(
                "SELECT 1 FROM jobs WHERE tenant_id = :tenant AND status = 'succeeded' AND submitted_at > :since"
                " LIMIT 1",
                tenant=self._installation.tenant_id,
                since=strike.database_time,
            )
            return bool(works) and self._installation.count(strike.held, "queued", "running") == 0

        wait_for(recovered, "the work to go on")
        self._recovery_s.append(time.monotonic() - strike.at)
        return self._recovery_s[-1]

    def ends(self, name: str, told: Sequence[str]) -> Count:
        """Wait until every job has ended; count, report and judge. The database must be there."""
        installation = self._installation
        wait_for(
            lambda: (
                not installation.query(
                    "SELECT 1 FROM jobs WHERE tenant_id = :tenant AND status IN ('queued', 'running') LIMIT 1",
                    tenant=installation.tenant_id,
                )
            ),
            "all jobs to end",
            patience_s=300,
        )
        found = invariant.count(installation.engine, installation.tenant_id, told)
        self._report.lines.append(Line(name, found, self.recovery_s))
        assert invariant.holds(found), found
        return found
