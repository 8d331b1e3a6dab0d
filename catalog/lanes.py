"""How full the lanes are: exact for metrics, cheap for the question whether one more job may enter.

Counting is exact up to EXACT_QUEUED rows of a partial index (well under a millisecond). A deeper lane is counted
in full by one request now and then, the more rarely the deeper it is, and the others read what it found: the limit
may then be overrun by what arrives in between, half a second at the default limit of the interactive lane.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog import rates
from catalog.errors import QueueFull
from catalog.settings import Settings
from catalog.views import LANES, Lane

EXACT_QUEUED = 1000
# Room for one job would be gone to the first of all who were refused: whoever comes back finds a hundredth free.
SHARE_TO_WAIT_FOR = 0.01
# The rate is that of the last minutes: it promises nothing beyond them, and nothing at all where it is unknown.
RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 1.0, float(rates.WINDOW_S)

_COUNT_UP_TO = text(
    """
    SELECT count(*) FROM (
        SELECT 1 FROM jobs WHERE status = 'queued' AND lane = :lane LIMIT :limit
    ) AS queued
    """
)
# Counting 20 000 rows costs some milliseconds: so counting takes about a hundredth of the time at any depth.
_IS_STALE = "measured_at < now() - greatest(0.5, queued / 20000.0) * interval '1 second'"
_LAST_MEASURE = text(f"SELECT queued, {_IS_STALE} AS stale FROM lane_depths WHERE lane = :lane")
# SKIP LOCKED: while one transaction measures, the others go on with the last measure.
_REMEASURE = text(
    f"""
    UPDATE lane_depths
    SET measured_at = now(),
        queued = (SELECT count(*) FROM jobs WHERE status = 'queued' AND lane = :lane)
    WHERE lane = (
        SELECT lane FROM lane_depths WHERE lane = :lane AND {_IS_STALE} FOR UPDATE SKIP LOCKED
    )
    RETURNING queued
    """
)
_FIRST_MEASURE = text(
    """
    INSERT INTO lane_depths (lane, queued, measured_at)
    VALUES (:lane, (SELECT count(*) FROM jobs WHERE status = 'queued' AND lane = :lane), now())
    ON CONFLICT (lane) DO NOTHING
    RETURNING queued
    """
)
_COUNTS = text(
    """
    SELECT lane, status, count(*) AS jobs, extract(epoch FROM now() - min(submitted_at))::float8 AS oldest_s
    FROM jobs WHERE status IN ('queued', 'running') GROUP BY lane, status
    """
)


@dataclass(frozen=True)
class LaneCount:
    """The live jobs of one lane; `oldest_queued_s` is None when none is queued, `jobs_per_s` when it is unknown."""

    queued: int
    running: int
    oldest_queued_s: float | None
    jobs_per_s: float | None


def counts(session: Session) -> dict[Lane, LaneCount]:
    """The live jobs of every lane and its rate. Cost grows with the live jobs only, never with the ended ones."""
    found = {(row.lane, row.status): row for row in session.execute(_COUNTS)}
    result: dict[Lane, LaneCount] = {}
    for lane in LANES:
        queued, running = found.get((lane, "queued")), found.get((lane, "running"))
        rate = rates.measure(session, lane)
        result[lane] = LaneCount(
            queued=queued.jobs if queued else 0,
            running=running.jobs if running else 0,
            oldest_queued_s=queued.oldest_s if queued else None,
            jobs_per_s=rate.jobs_per_s if rate else None,
        )
    return result


def require_room(session: Session, lane: Lane, settings: Settings) -> None:
    """Raises QueueFull when the lane takes no more."""
    limit = settings.max_queued(lane)
    queued = session.execute(_COUNT_UP_TO, {"lane": lane, "limit": min(limit, EXACT_QUEUED)}).scalar_one()
    if queued == EXACT_QUEUED < limit:
        queued = _measured(session, lane)
    if queued >= limit:
        raise QueueFull(lane, queued, limit, _until_room_s(session, lane, queued, limit))


def _until_room_s(session: Session, lane: Lane, queued: int, limit: int) -> float:
    """Seconds until workers have made room, at the rate they had lately."""
    rate = rates.measure(session, lane)
    if rate is None:
        return RETRY_AFTER_MAX_S
    too_many = queued - limit + max(1.0, limit * SHARE_TO_WAIT_FOR)
    return min(max(too_many / rate.jobs_per_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


def _measured(session: Session, lane: Lane) -> int:
    last = session.execute(_LAST_MEASURE, {"lane": lane}).one_or_none()
    if last is not None and not last.stale:
        return int(last.queued)
    statement = _FIRST_MEASURE if last is None else _REMEASURE
    measured = session.execute(statement, {"lane": lane}).scalar_one_or_none()
    if measured is not None:
        return int(measured)
    # Another transaction measures right now: its last figure, or, the very first time, what was counted exactly.
    return int(last.queued) if last is not None else EXACT_QUEUED
