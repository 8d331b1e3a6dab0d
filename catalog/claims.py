"""How a worker takes jobs: as many of a lane as a message names, by turns.

A claim gives a job to one worker for `lease_s` seconds and makes a new lease token. Nobody waits for anybody: a row
that somebody holds right now is being claimed by another worker, or sent by the sweep, and is passed over.

A message is a hint that so many jobs of its lane are due. Taking the named ones would let what one tenant sends keep
every other tenant waiting, since messages come in the order of sending. So tenants take turns, in a ring: a claim goes
on behind the tenant that was served last, and gives all that wait an equal share, oldest jobs first. The named jobs
count in two cases only: a lease that has lapsed is no queued job, and comes back by its name; and so does a suspect.

A suspect is a job that has had SUSPECT_AFTER attempts or more, the last of which ended without a word, as when its
worker was killed: it may be what kills them. Taken with others it would take them along to `failed`, so it is only
taken where it is asked for.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlalchemy.orm import Session

from catalog.embedding_cache import text_id
from catalog.settings import Settings
from catalog.tables import queued_in
from catalog.views import LANES, LEASE_RAN_OUT, SUPERSEDED, Lane

SUSPECT_AFTER = 2


@dataclass(frozen=True)
class ClaimedJob:
    """A job in the hands of one worker, with all that it needs to tag the product."""

    id: str
    product_id: str
    tenant_id: str
    lane: Lane
    attempts: int
    lease_token: str
    lease_until: datetime
    title: str
    description: str
    photo_ids: tuple[str, ...]
    last_attempt: bool = False

    @property
    def text_id(self) -> str | None:
        """Of `catalog.embedding_cache`; None for a product without a text."""
        return text_id(self.title, self.description)


def claim(
    session: Session,
    lane: Lane,
    job_ids: Sequence[str],
    *,
    worker: str,
    settings: Settings,
    most: int | None = None,
) -> list[ClaimedJob]:
    """Takes at most as many due jobs of the lane as are named, or `most`, in equal shares for all tenants that wait;
    those named whose lease ran out come first. No suspects.

    A job that has had all its attempts becomes `failed`, and one whose product has moved on to a newer revision becomes
    `cancelled`; neither is returned, and both count as taken.
    """
    taking = _Taking(session, worker, settings)
    most = len(job_ids) if most is None else most
    left, look = most, _look(session, lane, job_ids, most)
    if look.lapsed:
        left -= len(taking.take(_NAMED_AND_LAPSED, job_ids=list(job_ids)))
    first = last = look.last
    passed: set[str] = set()
    # Until all the way round whatever is due is in other hands.
    while left and not passed.issuperset(ring := look.ring[:left]):
        rows = taking.take(_OLDEST_OF_EACH[lane], tenants=ring, share=left // len(ring), limit=left)
        served = {row.tenant_id for row in rows}
        # The limit ended the round before the ring ended: those behind it are next.
        last = next((tenant for tenant in reversed(ring) if tenant in served), ring[-1])
        passed = passed | set(ring) if not rows else set()
        left -= len(rows)
        if left:
            look = _look(session, lane, [], left, last)
    if last != first:
        session.execute(_REMEMBER if first else _REMEMBER_FIRST, {"lane": lane, "tenant_id": last})
    return taking.claimed


def claim_suspects(
    session: Session, job_ids: Sequence[str], *, worker: str, settings: Settings
) -> list[ClaimedJob]:
    """Takes those of the jobs that are due, free and suspects, of any lane; they end as in `claim`."""
    taking = _Taking(session, worker, settings)
    taking.take(_SUSPECTS, job_ids=list(job_ids))
    return taking.claimed


def suspects_among(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Those of the jobs that are due and suspects."""
    return list(session.execute(_SUSPECTED, {"job_ids": list(job_ids)}).scalars())


_IS_NAMED = "id = ANY(CAST(:job_ids AS text[]))"
_IS_DUE = "(status = 'queued' AND not_before <= now() OR status = 'running' AND lease_until <= now())"
# Whoever puts a job back says why, until the next claim.
IS_SUSPECT = f"(jobs.attempts >= {SUSPECT_AFTER} AND jobs.error IS NULL)"
_SUSPECTED = text(f"SELECT id FROM jobs WHERE {_IS_NAMED} AND {_IS_DUE} AND {IS_SUSPECT} ORDER BY id")

# The candidates are locked first and joined to nothing; the rest of the statement works on what it got.
_SUSPECTS = f"""
    SELECT id, product_id, revision, attempts FROM jobs
    WHERE {_IS_NAMED} AND {_IS_DUE} AND {IS_SUSPECT}
    ORDER BY id
    FOR UPDATE SKIP LOCKED
"""
_NAMED_AND_LAPSED = f"""
    SELECT id, product_id, revision, attempts FROM jobs
    WHERE {_IS_NAMED} AND status = 'running' AND lease_until <= now() AND NOT {IS_SUSPECT}
    ORDER BY id
    FOR UPDATE SKIP LOCKED
"""
# LATERAL: each tenant's own range of the lane's index, read only as far as its share needs. BETWEEN, which is `=` here:
# of `=` the planner concludes that any order by time will do, and reads another tenant's whole import to find a job.
_OLDEST_OF_EACH: dict[Lane, str] = {
    lane: f"""
        SELECT oldest.* FROM unnest(CAST(:tenants AS text[])) WITH ORDINALITY AS ring (tenant_id, place)
        CROSS JOIN LATERAL (
            SELECT id, product_id, revision, attempts FROM jobs
            WHERE {queued_in(lane)} AND not_before <= now() AND NOT {IS_SUSPECT}
              AND jobs.tenant_id BETWEEN ring.tenant_id AND ring.tenant_id
            ORDER BY jobs.tenant_id, submitted_at LIMIT :share
            FOR UPDATE SKIP LOCKED
        ) AS oldest
        LIMIT :limit
    """
    for lane in LANES
}
# One statement, so one snapshot: the content it returns is that of the revision it checked.
_TAKE = """
    WITH picked AS MATERIALIZED ({candidates}),
    content AS (
        SELECT picked.id, products.title, products.description,
               CASE WHEN products.revision IS DISTINCT FROM picked.revision THEN 'cancelled'
                    WHEN picked.attempts >= :max_attempts THEN 'failed'
                    ELSE 'running' END AS next
        FROM picked LEFT JOIN products ON products.id = picked.product_id
    )
    UPDATE jobs SET
        status = next,
        attempts = attempts + CASE WHEN next = 'running' THEN 1 ELSE 0 END,
        lease_token = CASE WHEN next = 'running' THEN gen_random_uuid()::text END,
        lease_until = CASE WHEN next = 'running' THEN now() + CAST(:lease AS interval) END,
        resend_at = CASE WHEN next = 'running' THEN now() + CAST(:lease AS interval) ELSE resend_at END,
        resends = 0,
        worker = :worker,
        started_at = CASE WHEN next = 'running' THEN now() ELSE started_at END,
        finished_at = CASE WHEN next <> 'running' THEN now() END,
        error = CASE WHEN next = 'failed' THEN COALESCE(error, CAST(:lease_ran_out AS jsonb))
                     WHEN next = 'cancelled' THEN CAST(:superseded AS jsonb) END
    FROM content
    WHERE jobs.id = content.id
    RETURNING jobs.id, jobs.status, jobs.product_id, jobs.tenant_id, jobs.lane, jobs.attempts, jobs.lease_token,
        jobs.lease_until, content.title, content.description,
        ARRAY(SELECT photo_id FROM product_photos WHERE product_photos.product_id = jobs.product_id
              ORDER BY position) AS photo_ids
"""
_STATEMENTS = {
    candidates: text(_TAKE.format(candidates=candidates))
    for candidates in (_SUSPECTS, _NAMED_AND_LAPSED, *_OLDEST_OF_EACH.values())
}


class _Taking:
    """The statements of one claim, and what they gave."""

    def __init__(self, session: Session, worker: str, settings: Settings) -> None:
        self.claimed: list[ClaimedJob] = []
        self._session = session
        self._max_attempts = settings.max_attempts
        self._parameters = {
            "worker": worker,
            "lease": timedelta(seconds=settings.lease_s),
            "max_attempts": settings.max_attempts,
            "lease_ran_out": json.dumps(LEASE_RAN_OUT),
            "superseded": json.dumps(SUPERSEDED),
        }

    def take(self, candidates: str, **which: Any) -> Sequence[Row[Any]]:
        """Takes the candidates; returns the rows of all of them, also of those that were not claimed but ended."""
        statement: TextClause = _STATEMENTS[candidates]
        rows = self._session.execute(statement, self._parameters | which).all()
        self.claimed += [
            ClaimedJob(
                id=row.id,
                product_id=row.product_id,
                tenant_id=row.tenant_id,
                lane=row.lane,
                attempts=row.attempts,
                lease_token=row.lease_token,
                lease_until=row.lease_until,
                title=row.title,
                description=row.description,
                photo_ids=tuple(row.photo_ids),
                last_attempt=row.attempts >= self._max_attempts,
            )
            for row in rows
            if row.status == "running"
        ]
        return rows


# -- turns ---------------------------------------------------------------------------------------------------

# SKIP LOCKED: where two claims end at once either may be the last; neither waits for the other's commit.
_REMEMBER = text(
    """
    UPDATE lane_turns SET tenant_id = :tenant_id
    WHERE lane = (SELECT lane FROM lane_turns WHERE lane = :lane FOR UPDATE SKIP LOCKED)
    """
)
_REMEMBER_FIRST = text(
    "INSERT INTO lane_turns (lane, tenant_id) VALUES (:lane, :tenant_id) ON CONFLICT (lane) DO NOTHING"
)
# One statement, since each costs a claim of one job as much as the taking does. From tenant to tenant by one look into
# the lane's index each, however many jobs a tenant has: first those behind the last one, then from the beginning.
_LOOK: dict[Lane, TextClause] = {
    lane: text(
        f"""
        WITH RECURSIVE served AS MATERIALIZED (
            SELECT coalesce(
                CAST(:last AS text), (SELECT tenant_id FROM lane_turns WHERE lane = '{lane}'), ''
            ) AS last
        ), ring AS (
            SELECT last AS tenant_id, false AS round, 0 AS place FROM served
            UNION ALL
            SELECT coalesce(behind.tenant_id, ''), round OR behind.tenant_id IS NULL,
                   place + CASE WHEN behind.tenant_id IS NULL THEN 0 ELSE 1 END
            FROM ring CROSS JOIN served LEFT JOIN LATERAL (
                SELECT tenant_id FROM jobs
                WHERE {queued_in(lane)} AND jobs.tenant_id > ring.tenant_id
                  AND not_before <= now() AND NOT {IS_SUSPECT}
                ORDER BY jobs.tenant_id LIMIT 1
            ) AS behind ON true
            WHERE place < :most AND NOT (round AND (behind.tenant_id IS NULL OR behind.tenant_id > served.last))
        )
        SELECT served.last,
               ARRAY(SELECT tenant_id FROM ring WHERE place > 0 AND tenant_id <> '' ORDER BY place) AS ring,
               EXISTS (SELECT 1 FROM jobs WHERE {_IS_NAMED} AND status = 'running' AND lease_until <= now()) AS lapsed
        FROM served
        """
    )
    for lane in LANES
}


@dataclass(frozen=True)
class _Look:
    """`last` is the tenant whose turn it was last, empty before the first; `ring` the next ones with a job that is due,
    `last` itself the last of them; `lapsed` says whether the lease of a named job ran out.
    """

    last: str
    ring: list[str]
    lapsed: bool


def _look(session: Session, lane: Lane, job_ids: Sequence[str], most: int, last: str | None = None) -> _Look:
    """At most so many tenants behind `last`, or behind the one that was remembered."""
    parameters = {"job_ids": list(job_ids), "most": most, "last": last}
    return _Look(*session.execute(_LOOK[lane], parameters).one())
