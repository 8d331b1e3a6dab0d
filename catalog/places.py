"""Where a queued job stands, and when it may be expected to end.

Workers take the lanes in the order of LANES, and in each of them tenants take turns, each with its oldest job first
(`catalog.claims`); so that is what is counted. A job that was put back after a fault of the world is counted where it
was submitted, though it is sent again later.
"""

from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from catalog import rates
from catalog.tables import queued_in
from catalog.views import LANES, JobView, Lane

# Counting 10 000 rows of the index takes a millisecond or two, and further back the exact number helps nobody.
MAX_POSITION = 10_000
# Other tenants whose turns are counted: a look into the index for each, some milliseconds for so many.
MAX_TENANTS = 1000

# From the newest towards the front: the front of the index is where the rows of claimed jobs wait to be vacuumed.
_IN_LANE: dict[Lane, TextClause] = {
    lane: text(
        f"""
        SELECT count(*) FROM (
            SELECT 1 FROM jobs WHERE {queued_in(lane)} ORDER BY submitted_at DESC LIMIT :limit
        ) AS queued
        """
    )
    for lane in LANES
}
# Before a job come the older ones of its own tenant, and of each other tenant as many and one more, if it has
# them. BETWEEN, which is `=` here, leaves the planner only the index in which each tenant has a range of its own.
_AHEAD_BY_TURNS: dict[Lane, TextClause] = {
    lane: text(
        f"""
        WITH RECURSIVE own AS MATERIALIZED (
            SELECT mine.tenant_id, (
                SELECT count(*) FROM (
                    SELECT 1 FROM jobs
                    WHERE {queued_in(lane)} AND submitted_at < mine.submitted_at
                      AND jobs.tenant_id BETWEEN mine.tenant_id AND mine.tenant_id
                    ORDER BY jobs.tenant_id DESC, submitted_at DESC LIMIT :limit
                ) AS older
            ) AS ahead
            FROM jobs AS mine WHERE mine.id = :id
        ), waiting AS (
            SELECT '' AS tenant_id
            UNION ALL
            SELECT next.tenant_id FROM waiting CROSS JOIN LATERAL (
                SELECT tenant_id FROM jobs
                WHERE {queued_in(lane)} AND jobs.tenant_id > waiting.tenant_id
                ORDER BY jobs.tenant_id LIMIT 1
            ) AS next
        )
        SELECT own.ahead + (
            SELECT count(*) FROM (
                SELECT 1 FROM (SELECT tenant_id FROM waiting LIMIT :tenants) AS other CROSS JOIN LATERAL (
                    SELECT 1 FROM jobs
                    WHERE {queued_in(lane)}
                      AND jobs.tenant_id BETWEEN other.tenant_id AND other.tenant_id
                    ORDER BY jobs.tenant_id, submitted_at LIMIT own.ahead + 1
                ) AS turns
                WHERE other.tenant_id <> own.tenant_id
                LIMIT :limit
            ) AS others
        )
        FROM own
        """
    )
    for lane in LANES
}


@dataclass(frozen=True)
class Place:
    """`position`: the jobs that are taken earlier, counted up to MAX_POSITION. `eta_s`: seconds until the job ends.

    Where the count stopped, there or after MAX_TENANTS, `eta_s` is the least it can be; it is None where no rate could
    be measured.
    """

    position: int
    eta_s: float | None


def find(session: Session, job: JobView) -> Place:
    """The place of a queued job. Costs at most twice MAX_POSITION rows of an index for each lane."""
    earlier = LANES[: LANES.index(job.lane)]
    ahead = {lane: _queued(session, lane) for lane in earlier}
    ahead[job.lane] = _ahead_by_turns(session, job)
    return Place(min(sum(ahead.values()), MAX_POSITION), _eta_s(session, ahead, job.lane))


def _queued(session: Session, lane: Lane) -> int:
    return int(session.execute(_IN_LANE[lane], {"limit": MAX_POSITION}).scalar_one())


def _ahead_by_turns(session: Session, job: JobView) -> int:
    # The first of `waiting` is no tenant, and one is the job's own.
    parameters = {"id": job.id, "limit": MAX_POSITION, "tenants": MAX_TENANTS + 2}
    return int(session.execute(_AHEAD_BY_TURNS[job.lane], parameters).scalar_one())


def _eta_s(session: Session, ahead: dict[Lane, int], own: Lane) -> float | None:
    """The time of what is ahead, each lane at its own rate, and then of the job itself."""
    eta_s = 0.0
    for lane, jobs in ahead.items():
        if jobs == 0 and lane != own:
            continue
        rate = rates.measure(session, lane)
        if rate is None:
            return None
        eta_s += jobs / rate.jobs_per_s + (rate.run_s if lane == own else 0.0)
    return round(eta_s, 1)
