"""How fast a lane is worked off, measured from the jobs that a worker ended in the last minutes.

A lane that is mostly idle ends few jobs, and that says nothing of how long a queue would take. So what is measured
is the jobs ended in the time in which there was work: in which at least one of them, or the oldest job that is
still queued, had been submitted and not ended. A worker that stopped shows at once: the oldest queued job keeps
that time running while nothing is ended.

One look costs at most SAMPLE rows of a partial index, however many jobs are queued or have ended.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from catalog.tables import queued_in
from catalog.views import LANES, Lane

# What is older says little about now: workers were added or went, products were others.
WINDOW_S = 300
# Bulk jobs end up to 64 at once, so this is some eight endings at least.
SAMPLE = 500

# Where the sample is full, the time begins with its oldest ending, whose jobs are then not counted themselves.
# MATERIALIZED: a plan made while the table was small would compute it again for each of the sample's rows.
# `least` keeps each range in order: submitted_at may lie behind another time when the database's clock was set.
_MEASURE: dict[Lane, TextClause] = {
    lane: text(
        f"""
        WITH ended AS (
            SELECT submitted_at, started_at, finished_at FROM jobs
            WHERE lane = '{lane}' AND status IN ('succeeded', 'failed')
              AND finished_at > now() - CAST(:window AS interval) AND finished_at <= now()
            ORDER BY finished_at DESC LIMIT :sample
        ), span AS (
            SELECT CASE WHEN count(*) = :sample THEN min(finished_at)
                        ELSE now() - CAST(:window AS interval) END AS since
            FROM ended
        ), work AS (
            SELECT submitted_at, finished_at AS until FROM ended
            UNION ALL
            (SELECT submitted_at, now() FROM jobs WHERE {queued_in(lane)}
             ORDER BY submitted_at LIMIT 1)
        ), stretches AS (
            SELECT unnest(range_agg(tstzrange(least(greatest(submitted_at, since), until), until))) AS stretch
            FROM work, span
        ), busy AS MATERIALIZED (
            SELECT extract(epoch FROM sum(upper(stretch) - lower(stretch)))::float8 AS seconds FROM stretches
        )
        SELECT count(*) FILTER (WHERE finished_at > since) / max(seconds) AS jobs_per_s,
               extract(epoch FROM avg(finished_at - started_at))::float8 AS run_s
        FROM ended, span, busy
        """
    )
    for lane in LANES
}


@dataclass(frozen=True)
class Rate:
    """`jobs_per_s` in the time in which the lane had work; `run_s` from a job's claim to its end, on average."""

    jobs_per_s: float
    run_s: float


def measure(session: Session, lane: Lane) -> Rate | None:
    """The lane's rate; None when no worker has ended a job of it in the last WINDOW_S seconds."""
    row = session.execute(_MEASURE[lane], {"window": timedelta(seconds=WINDOW_S), "sample": SAMPLE}).one()
    if not row.jobs_per_s:
        return None
    return Rate(jobs_per_s=row.jobs_per_s, run_s=row.run_s)
