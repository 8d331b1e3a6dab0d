"""The life of a job as workers see it: claim, then finish, fail or put back. The row is the truth.

A claim gives a job to one worker for `lease_s` seconds and makes a new lease token; every outcome is written only
by the holder of the current token, in one statement that also checks it. So a message may be delivered twice, a
worker may be slow, die, or come back from the dead, and a job still ends once with one set of tags. A lease that
has run out while nobody else took the job still counts: throwing its work away would help nobody.

All times are the database's clock. Queue and model are unknown here.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import func, text, update
from sqlalchemy.orm import Session

from catalog import embedding_cache
from catalog.claims import ClaimedJob, claim, claim_suspects, suspects_among
from catalog.errors import NotCancellable, NotFound
from catalog.tables import Job
from catalog.tags import tags_of, write_embeddings, write_tags
from catalog.views import SUPERSEDED, JobView, Problem, TagView

__all__ = [
    "ClaimedJob",
    "Finished",
    "JobView",
    "cancel",
    "claim",
    "claim_suspects",
    "ended",
    "fail",
    "finish",
    "get_job",
    "put_back",
    "replay",
    "suspects_among",
]


@dataclass(frozen=True)
class Finished:
    """A claimed job with its result; `photo_embeddings` by photo id and `text_embedding` are of what was new, to be
    remembered for `features_version`.
    """

    job: ClaimedJob
    tags: Sequence[TagView]
    embedding: Sequence[float] | None
    model_name: str
    model_version: str
    photo_embeddings: Mapping[str, bytes] = field(default_factory=dict)
    text_embedding: bytes | None = None
    features_version: str = ""


LOCK_PRODUCTS = text(
    "SELECT 1 FROM products WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id FOR NO KEY UPDATE"
)
# Locked in order first: a renewal of leases locks many of the same rows.
_SUCCEED = text(
    """
    WITH held AS MATERIALIZED (
        SELECT id FROM jobs WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id FOR UPDATE
    )
    UPDATE jobs SET
        status = 'succeeded', finished_at = now(), lease_token = NULL, lease_until = NULL, error = NULL,
        model_name = done.model_name, model_version = done.model_version
    FROM unnest(CAST(:ids AS text[]), CAST(:tokens AS text[]), CAST(:names AS text[]), CAST(:versions AS text[]))
        AS done (id, token, model_name, model_version)
        JOIN held ON held.id = done.id
    WHERE jobs.id = done.id AND jobs.status = 'running' AND jobs.lease_token = done.token
    RETURNING jobs.id, jobs.product_id, jobs.revision
    """
)
_SHOW_TAGS = text(
    """
    UPDATE products SET tagged_job_id = done.job_id, tagged_revision = done.revision, updated_at = now()
    FROM unnest(CAST(:ids AS text[]), CAST(:job_ids AS text[]), CAST(:revisions AS int[]))
        AS done (id, job_id, revision)
    WHERE products.id = done.id AND products.tagged_revision < done.revision
    """
)


def finish(session: Session, finished: Sequence[Finished]) -> set[str]:
    """Writes the results of a batch; returns the ids of those written. Of a job whose lease was lost, nothing is."""
    # Products before jobs, in order: like everyone who locks both.
    session.execute(LOCK_PRODUCTS, {"ids": [done.job.product_id for done in finished]})
    rows = session.execute(
        _SUCCEED,
        {
            "ids": [done.job.id for done in finished],
            "tokens": [done.job.lease_token for done in finished],
            "names": [done.model_name for done in finished],
            "versions": [done.model_version for done in finished],
        },
    ).all()
    written = {row.id for row in rows}
    kept = [done for done in finished if done.job.id in written]
    write_tags(session, {done.job.id: done.tags for done in kept})
    write_embeddings(
        session,
        [
            {
                "job_id": done.job.id,
                "product_id": done.job.product_id,
                "model_version": done.model_version,
                "embedding": list(done.embedding),
            }
            for done in kept
            if done.embedding is not None
        ],
    )
    embedding_cache.PHOTOS.remember(
        session,
        {
            (done.job.tenant_id, photo_id, done.features_version): embedding
            for done in kept
            for photo_id, embedding in done.photo_embeddings.items()
        },
    )
    embedding_cache.TEXTS.remember(
        session,
        {
            (done.job.tenant_id, done.job.text_id, done.features_version): done.text_embedding
            for done in kept
            if done.job.text_id is not None and done.text_embedding is not None
        },
    )
    # A batch can hold two revisions of one product: the later one counts.
    newest = {row.product_id: row for row in sorted(rows, key=lambda row: row.revision)}
    if newest:
        session.execute(
            _SHOW_TAGS,
            {
                "ids": list(newest),
                "job_ids": [row.id for row in newest.values()],
                "revisions": [row.revision for row in newest.values()],
            },
        )
    return written


def fail(session: Session, job: ClaimedJob, problem: Problem) -> bool:
    """Ends the job as failed, for a fault of its own; False where its lease was lost."""
    return _let_go(session, job, status="failed", finished_at=func.now(), error=problem)


_PUT_BACK = text(
    """
    UPDATE jobs SET
        status = next.status,
        attempts = attempts - CASE WHEN :tried THEN 0 ELSE 1 END,
        finished_at = CASE WHEN next.status <> 'queued' THEN now() END,
        lease_token = NULL,
        lease_until = NULL,
        not_before = now() + CAST(:delay AS interval),
        resend_at = now() + CAST(:delay AS interval),
        resends = 0,
        error = CASE WHEN next.status = 'cancelled' THEN CAST(:superseded AS jsonb) ELSE CAST(:problem AS jsonb) END
    FROM (
        SELECT mine.id,
               CASE WHEN products.revision IS DISTINCT FROM mine.revision THEN 'cancelled'
                    WHEN :last_attempt THEN 'failed'
                    ELSE 'queued' END AS status
        FROM jobs AS mine LEFT JOIN products ON products.id = mine.product_id
        WHERE mine.id = :id
    ) AS next
    WHERE jobs.id = next.id AND jobs.status = 'running' AND jobs.lease_token = :token
    RETURNING jobs.status
    """
)


def put_back(
    session: Session, job: ClaimedJob, problem: Problem, delay_s: float, *, tried: bool = True
) -> Literal["queued", "failed", "cancelled"] | None:
    """Queues the job again, due in `delay_s` seconds, after a fault of the world; None where its lease was lost.

    Says what the job is now: after the last attempt it is `failed` instead, and `cancelled` where a newer revision has
    its own job. One that nobody `tried` gets its attempt back.
    """
    row = session.execute(
        _PUT_BACK,
        {
            "id": job.id,
            "token": job.lease_token,
            "delay": timedelta(seconds=delay_s),
            "tried": tried,
            "last_attempt": tried and job.last_attempt,
            "problem": json.dumps(problem),
            "superseded": json.dumps(SUPERSEDED),
        },
    )
    status: Literal["queued", "failed", "cancelled"] | None = row.scalar_one_or_none()
    return status


def cancel(session: Session, tenant_id: str, job_id: str) -> JobView:
    """Cancels a queued job. Raises NotFound, and NotCancellable for one that runs or has ended."""
    cancelled = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.tenant_id == tenant_id, Job.status == "queued")
        .values(status="cancelled", finished_at=func.now(), error=None)
        .returning(Job.id)
    ).scalar_one_or_none()
    view = get_job(session, tenant_id, job_id)
    if cancelled is None:
        raise NotCancellable(job_id, view.status)
    return view


_REPLAY = text(
    """
    UPDATE jobs SET status = 'queued', attempts = 0, not_before = now(), resend_at = now(), resends = 0,
        submitted_at = now(), started_at = NULL, finished_at = NULL, error = NULL
    FROM products
    WHERE jobs.id = ANY(CAST(:ids AS text[])) AND jobs.status = 'failed'
      AND products.id = jobs.product_id AND products.revision = jobs.revision
    RETURNING jobs.id
    """
)


def replay(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Queues failed jobs again with all their attempts; the sweep sends them. Returns the ids of those it queued.

    They are submitted from now on: how long they had failed for is no time that they waited, and a rate measured over
    it would be of no worker. A job whose product was changed or deleted since stays as it is.
    """
    return list(session.execute(_REPLAY, {"ids": list(job_ids)}).scalars())


# Asked many times a second while somebody waits: a statement that SQLAlchemy builds anew costs twice as much.
_LIVE = text("SELECT id FROM jobs WHERE id = ANY(CAST(:ids AS text[])) AND status IN ('queued', 'running')")


def ended(session: Session, job_ids: Collection[str]) -> set[str]:
    """Which of the jobs will not change any more; one that does not exist is among them."""
    return set(job_ids) - set(session.execute(_LIVE, {"ids": list(job_ids)}).scalars())


_READ = text(
    """
    SELECT id, product_id, status, lane, attempts, submitted_at, started_at, finished_at, model_name, model_version,
           error
    FROM jobs WHERE id = :id AND tenant_id = :tenant_id
    """
)


def get_job(session: Session, tenant_id: str, job_id: str) -> JobView:
    """The job, with its tags once it has succeeded. Raises NotFound, also for another tenant's."""
    row = session.execute(_READ, {"id": job_id, "tenant_id": tenant_id}).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    tags = tags_of(session, [job_id])[job_id] if row.status == "succeeded" else None
    return JobView(**row._mapping, tags=tags)


def _let_go(session: Session, job: ClaimedJob, **outcome: Any) -> bool:
    """Ends the lease with this outcome, if it is still this worker's."""
    row = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.status == "running", Job.lease_token == job.lease_token)
        .values(lease_token=None, lease_until=None, **outcome)
        .returning(Job.id)
    )
    return row.scalar_one_or_none() is not None
