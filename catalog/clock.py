"""What follows when the clock of the database was set back: the times written before lie in the future now.

A job accepted a moment ago would be due an hour later, and one in the hands of a worker that died would stay there as
long. No time of ours lies further ahead than `horizon`, so what does was written before the step, and starts anew.
"""

from datetime import timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.settings import Settings
from catalog.views import Lane

# A job that stays queued is sent later and later: each wait doubles, up to so many times.
RESEND_DOUBLINGS = 4
# The same of one that was put back: a photo store that is away for a minute must not use up its attempts.
RETRY_DOUBLINGS = 3

log = structlog.get_logger(__name__)

# `resend_at` is the latest time of a live job, and has an index. A lease starts anew, since its holder may well live
# and renews it then, as ever; whoever holds a row right now is writing new times. Jobs are worked off in the order of
# `submitted_at`: those of the future would come after all that are still to be accepted.
_START_ANEW = text(
    """
    WITH ahead AS (
        SELECT id FROM jobs
        WHERE lane = :lane AND status IN ('queued', 'running')
          AND resend_at > now() + CAST(:horizon AS interval)
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET
        submitted_at = least(submitted_at, now()),
        not_before = least(not_before, now()),
        lease_until = CASE WHEN status = 'running' THEN now() + CAST(:lease AS interval) END,
        resend_at = CASE WHEN status = 'running' THEN now() + CAST(:lease AS interval) ELSE now() END
    FROM ahead
    WHERE jobs.id = ahead.id
    RETURNING jobs.id
    """
)


def horizon(settings: Settings) -> timedelta:
    """Twice the longest wait of a job, since another process may have other settings for a while.

    After a smaller step a job waits as long as the step was, at most.
    """
    resend = settings.resend_after_s * 2**RESEND_DOUBLINGS
    retry = settings.retry_delay_s * 2**RETRY_DOUBLINGS
    return timedelta(seconds=2 * max(resend, settings.lease_s, retry))


def start_anew(session: Session, lane: Lane, settings: Settings, limit: int) -> int:
    """Gives up to `limit` live jobs whose times lie beyond the horizon new ones; returns how many."""
    found = session.execute(
        _START_ANEW,
        {
            "lane": lane,
            "horizon": horizon(settings),
            "lease": timedelta(seconds=settings.lease_s),
            "limit": limit,
        },
    ).all()
    if found:
        log.warning("the database's clock was set back", lane=lane, jobs=len(found))
    return len(found)
