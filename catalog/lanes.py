"""How full the lanes are: exact for metrics, cheap for the question whether one more job may enter.

A tenant's job enters while the tenant has fewer jobs queued in the lane than the lane has places free (in switches this
is the dynamic threshold of Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). So one tenant alone
fills half of a lane, of T tenants that all want more each gets an equal part of T/(T + 1), and whoever comes next
finds room; those who have more than their part are refused until workers have brought them down to it.

Counting is exact up to EXACT_QUEUED rows of a partial index (well under a millisecond). A deeper lane is counted
in full by one request now and then, the more rarely the deeper it is, and the others read what it found: limits
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
_SHARES_UP_TO = text(
    """
    SELECT count(*) AS queued, count(*) FILTER (WHERE tenant_id = :tenant_id) AS own,
           count(DISTINCT tenant_id) AS tenants
    FROM (SELECT tenant_id FROM jobs WHERE status = 'queued' AND lane = :lane LIMIT :limit) AS queued
    """
)
# Counting 20 000 rows costs some milliseconds: so counting takes about a hundredth of the time at any depth.
# One of the future, by more than a transaction lasts, was made before the database's clock was set back.
_IS_STALE = """(
    measured_at < now() - greatest(0.5, queued / 20000.0) * interval '1 second'
    OR measured_at > now() + interval '1 minute'
)"""
_LAST_MEASURE = text(f"SELECT queued, {_IS_STALE} AS stale FROM lane_depths WHERE lane = :lane")
_LAST_SHARES = text(
    """
    SELECT queued, coalesce(CAST(shares ->> :tenant_id AS bigint), 0) AS own,
           (SELECT count(*) FROM jsonb_object_keys(shares)) AS tenants
    FROM lane_depths WHERE lane = :lane
    """
)
_MEASURE = """
    SELECT coalesce(sum(jobs), 0) AS queued,
           coalesce(jsonb_object_agg(tenant_id, jobs), '{}') AS shares
    FROM (SELECT tenant_id, count(*) AS jobs FROM jobs
          WHERE status = 'queued' AND lane = :lane GROUP BY tenant_id) AS by_tenant
"""
# SKIP LOCKED: while one transaction measures, the others go on with the last measure.
_REMEASURE = text(
    f"""
    UPDATE lane_depths
    SET measured_at = now(), (queued, shares) = ({_MEASURE})
    WHERE lane = (
        SELECT lane FROM lane_depths WHERE lane = :lane AND {_IS_STALE} FOR UPDATE SKIP LOCKED
    )
    RETURNING queued
    """
)
_FIRST_MEASURE = text(
    f"""
    INSERT INTO lane_depths (lane, measured_at, queued, shares)
    SELECT :lane, now(), queued, shares FROM ({_MEASURE}) AS measure
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


@dataclass(frozen=True)
class Shares:
    """Who holds how much of a lane: all queued jobs, those of one tenant, and how many tenants have any."""

    queued: int
    own: int
    tenants: int


def require_room(session: Session, lane: Lane, tenant_id: str, settings: Settings) -> None:
    """Raises QueueFull when the lane takes no more from this tenant."""
    limit = settings.max_queued(lane)
    exact = min(limit, EXACT_QUEUED)
    queued = session.execute(_COUNT_UP_TO, {"lane": lane, "limit": exact}).scalar_one()
    deep = queued == EXACT_QUEUED < limit
    if deep:
        queued = _measured(session, lane)
    if queued < limit - queued:
        return  # even if all of them are the tenant's
    who = {"lane": lane, "tenant_id": tenant_id}
    if deep:
        row = session.execute(_LAST_SHARES, who).one()
    else:
        row = session.execute(_SHARES_UP_TO, who | {"limit": exact}).one()
    shares = Shares(int(row.queued), row.own, row.tenants)
    if shares.own >= limit - shares.queued:
        raise QueueFull(lane, shares.own, shares.queued, limit, _until_room_s(session, lane, shares, limit))


def _until_room_s(session: Session, lane: Lane, shares: Shares, limit: int) -> float:
    """Seconds until workers have made room for this tenant, at the rate they had lately.

    A job that ends makes a place free, and one of the tenant's own, by turns every `tenants`th, one fewer of it.
    """
    rate = rates.measure(session, lane)
    if rate is None:
        return RETRY_AFTER_MAX_S
    too_many = shares.own + shares.queued - limit + max(1.0, limit * SHARE_TO_WAIT_FOR)
    gain_per_job = 1 + 1 / max(1, shares.tenants)
    return min(max(too_many / gain_per_job / rate.jobs_per_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


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
