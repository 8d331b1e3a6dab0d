"""The sweep: finds the jobs whose message was lost, or whose worker was, and sends them again.

Run every few seconds by one process or by several: rows that another sweep holds are skipped. It also ends jobs
that have had all their attempts, and clears away what nobody needs any more.

A message takes whichever queued jobs are due, so of a lane only the number of messages counts: as many are sent as
there are queued jobs without one, and none while there are enough. They are sent however young the jobs are. Each
product that comes brings a message, which takes an older job: after some messages were lost jobs would wait for just as
many others to come, for ever, beside an idle worker, and none of them would grow old enough to be noticed.

What a sweep has sent once is sent later and later: each wait doubles, up to RESEND_DOUBLINGS times. Times that lie in
the future since the database's clock was set back start anew, see `catalog.clock`.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Engine, Row, text
from sqlalchemy.orm import Session

from catalog import embedding_cache, idempotency, photos
from catalog.claims import IS_SUSPECT
from catalog.clock import RESEND_DOUBLINGS, start_anew
from catalog.database import transaction
from catalog.errors import BrokerUnavailable, StoreUnavailable
from catalog.photo_store import PhotoStore
from catalog.queue import MAX_IDS
from catalog.settings import Settings
from catalog.views import LANES, LEASE_RAN_OUT, SUPERSEDED, Lane

STARTED_ANEW_LIMIT = 10_000  # well under a second, and more jobs than are worked off between two sweeps
PRUNE_LIMIT = 1000
PHOTOS_LIMIT = (
    500  # some 10 ms each from an object store; of a slow one the time between two sweeps is the limit
)
EMBEDDINGS_PRUNE_LIMIT = 10_000  # more than a busy device can make between two sweeps
# A photo that a change replaced stays this many leases: an older job may be reading it.
LEASES_BEFORE_REMOVAL = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """What one sweep did, in jobs, records, photos and embeddings of photos and texts.

    `unsent` are due jobs that the broker did not take.
    """

    sent: int = 0
    unsent: int = 0
    failed: int = 0
    cancelled: int = 0
    records_pruned: int = 0
    photos_removed: int = 0
    embeddings_pruned: int = 0


_TAKE_DUE = """
    WITH due AS (
        SELECT jobs.id,
               CASE WHEN products.revision IS DISTINCT FROM jobs.revision THEN 'cancelled'
                    WHEN jobs.status = 'running' AND jobs.attempts >= :max_attempts THEN 'failed'
                    ELSE jobs.status END AS next
        FROM jobs LEFT JOIN products ON products.id = jobs.product_id
        WHERE {such} AND jobs.lane = :lane
        ORDER BY jobs.resend_at
        LIMIT :limit
        FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE jobs SET
        status = next,
        resend_at = now() + CAST(:resend_after AS interval) * power(2, least(resends, :doublings)),
        resends = least(resends + 1, :doublings),
        finished_at = CASE WHEN next IN ('failed', 'cancelled') THEN now() END,
        lease_token = CASE WHEN next = 'running' THEN lease_token END,
        lease_until = CASE WHEN next = 'running' THEN lease_until END,
        error = CASE WHEN next = 'failed' THEN COALESCE(error, CAST(:lease_ran_out AS jsonb))
                     WHEN next = 'cancelled' THEN CAST(:superseded AS jsonb)
                     ELSE error END
    FROM due
    WHERE jobs.id = due.id
    RETURNING jobs.id, jobs.status
"""
_TAKE_LAPSED = text(_TAKE_DUE.format(such="jobs.status = 'running' AND jobs.resend_at <= now()"))
_TAKE_SUSPECTS = text(
    _TAKE_DUE.format(such=f"jobs.status = 'queued' AND {IS_SUSPECT} AND jobs.resend_at <= now()")
)
# By a message of whichever job.
_IS_TAKEN_BY_ANY = f"jobs.status = 'queued' AND jobs.not_before <= now() AND NOT {IS_SUSPECT}"
_TAKE_QUEUED = text(
    _TAKE_DUE.format(such=f"{_IS_TAKEN_BY_ANY} AND (jobs.resends = 0 OR jobs.resend_at <= now())")
)
_QUEUED_UP_TO = text(
    f"""
    SELECT count(*) FROM (
        SELECT 1 FROM jobs WHERE {_IS_TAKEN_BY_ANY} AND lane = :lane LIMIT :limit
    ) AS queued
    """
)
# SKIP LOCKED: a job that somebody holds is in good hands, and who never waits is part of no deadlock.
_STILL_DUE = text(
    """
    WITH unsent AS (
        SELECT id FROM jobs
        WHERE id = ANY(CAST(:ids AS text[])) AND status IN ('queued', 'running') AND resend_at > now()
          AND (status = 'queued' OR lease_until <= now())
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET resend_at = now(), resends = greatest(resends - 1, 0)
    FROM unsent
    WHERE jobs.id = unsent.id
    """
)


def sweep(
    engine: Engine,
    send: Callable[[list[str], Lane], None],
    waiting: Callable[[Lane], int],
    settings: Settings,
) -> SweepResult:
    """One sweep. `send` puts one message of job ids into a lane, `waiting` counts the messages that are in it, and both
    raise BrokerUnavailable where they cannot.

    A broker that is away ends the sending; the jobs stay due for the next sweep. Raises DatabaseUnavailable.
    """
    sent = unsent = failed = cancelled = 0
    broker_works = True
    for lane in LANES:
        messages = None
        try:
            messages = waiting(lane)
        except BrokerUnavailable as error:
            log.warning("sweep_sends_nothing", lane=lane, error=str(error))
            broker_works = False
        # Committed before anything is sent: a worker that is quick must not find its job locked by us. Should this
        # process die in between, the jobs are due again after their wait.
        with transaction(engine) as session:
            start_anew(session, lane, settings, STARTED_ANEW_LIMIT)
            taken = _take_due(session, lane, messages, settings)
        failed += sum(row.status == "failed" for row in taken)
        cancelled += sum(row.status == "cancelled" for row in taken)
        due = [row.id for row in taken if row.status in ("queued", "running")]
        done = _send_all(due, lane, send) if broker_works else 0
        sent, unsent = sent + done, unsent + len(due) - done
        if done < len(due):
            broker_works = False
            with transaction(engine) as session:
                session.execute(_STILL_DUE, {"ids": due[done:]})
    return SweepResult(
        sent=sent,
        unsent=unsent,
        failed=failed,
        cancelled=cancelled,
        records_pruned=_prune_records(engine),
        embeddings_pruned=_prune_embeddings(engine, settings),
        photos_removed=_remove_photos(engine, settings),
    )


def _take_due(session: Session, lane: Lane, messages: int | None, settings: Settings) -> list[Row[Any]]:
    """All lapsed leases and suspects that one sweep may take, and as many other queued jobs as are more than the
    messages that wait; none of these where nobody knows how many do.
    """
    parameters = {
        "lane": lane,
        "max_attempts": settings.max_attempts,
        "resend_after": timedelta(seconds=settings.resend_after_s),
        "doublings": RESEND_DOUBLINGS,
        "lease_ran_out": json.dumps(LEASE_RAN_OUT),
        "superseded": json.dumps(SUPERSEDED),
    }
    taken = list(session.execute(_TAKE_LAPSED, parameters | {"limit": settings.sweep_limit}).all())
    left = settings.sweep_limit - len(taken)
    taken += session.execute(_TAKE_SUSPECTS, parameters | {"limit": left}).all()
    if messages is None:
        return taken
    covered = messages * MAX_IDS[lane]
    limit = settings.sweep_limit - len(taken)
    # More queued jobs than these make no more room than the limit.
    enough = covered + limit
    queued = session.execute(_QUEUED_UP_TO, {"lane": lane, "limit": enough}).scalar_one()
    room = min(limit, queued - covered)
    if room > 0:
        taken += session.execute(_TAKE_QUEUED, parameters | {"limit": room}).all()
    return taken


def _send_all(job_ids: Sequence[str], lane: Lane, send: Callable[[list[str], Lane], None]) -> int:
    """Sends the jobs in messages of the lane's size; returns how many the broker took."""
    done = 0
    while done < len(job_ids):
        message = list(job_ids[done : done + MAX_IDS[lane]])
        try:
            send(message, lane)
        except BrokerUnavailable as error:
            log.warning("sweep_stopped_sending", lane=lane, unsent=len(job_ids) - done, error=str(error))
            break
        done += len(message)
    return done


def _prune_records(engine: Engine) -> int:
    with transaction(engine) as session:
        return idempotency.prune(session, PRUNE_LIMIT)


def _prune_embeddings(engine: Engine, settings: Settings) -> int:
    days, pruned = settings.embedding_cache_days, 0
    for cache in (embedding_cache.PHOTOS, embedding_cache.TEXTS):
        with transaction(engine) as session:
            pruned += cache.prune(session, days, EMBEDDINGS_PRUNE_LIMIT)
    return pruned


def _remove_photos(engine: Engine, settings: Settings) -> int:
    age_s = LEASES_BEFORE_REMOVAL * settings.lease_s
    try:
        store = _store(settings.resolved_photo_store_url())
        removed = photos.remove_released(
            engine, store, older_than_s=age_s, limit=PHOTOS_LIMIT, within_s=settings.sweep_interval_s
        )
        store.remove_unfinished()
        return removed
    except StoreUnavailable as error:
        log.warning("sweep_left_photos", error=str(error))
        return 0


@functools.lru_cache(maxsize=1)
def _store(url: str) -> PhotoStore:
    """The same for every sweep of the process: each has threads that wait for calls which may never return."""
    return PhotoStore.open(url)
