"""Where a queued job stands, and when it may be expected to end.

Workers take the lanes in the order of LANES and each lane first in, first out, so that is what is counted. A job
that was put back after a fault of the world is counted where it was submitted, though it is sent again later.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog import rates
from catalog.views import LANES, JobView, Lane

# Counting 10 000 rows of the index takes a millisecond or two, and further back the exact number helps nobody.
MAX_POSITION = 10_000

# From the job towards the front: the front of the index is where the rows of claimed jobs wait to be vacuumed.
_AHEAD = text(
    """
    SELECT count(*) FROM (
        SELECT 1 FROM jobs
        WHERE status = 'queued' AND lane = :lane
          AND submitted_at < coalesce(CAST(:submitted_at AS timestamptz), 'infinity')
        ORDER BY submitted_at DESC LIMIT :limit
    ) AS ahead
    """
)


@dataclass(frozen=True)
class Place:
    """`position`: the jobs that are taken earlier, counted up to MAX_POSITION. `eta_s`: seconds until the job ends.

    Where the count stopped, `eta_s` is the least it can be; it is None where no rate could be measured.
    """

    position: int
    eta_s: float | None


def find(session: Session, job: JobView) -> Place:
    """The place of a queued job. Costs at most MAX_POSITION rows of an index for each lane."""
    earlier = LANES[: LANES.index(job.lane)]
    ahead = {lane: _ahead(session, lane, None) for lane in earlier}
    ahead[job.lane] = _ahead(session, job.lane, job.submitted_at)
    return Place(min(sum(ahead.values()), MAX_POSITION), _eta_s(session, ahead, job.lane))


def _ahead(session: Session, lane: Lane, submitted_at: datetime | None) -> int:
    parameters = {"lane": lane, "submitted_at": submitted_at, "limit": MAX_POSITION}
    return int(session.execute(_AHEAD, parameters).scalar_one())


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
