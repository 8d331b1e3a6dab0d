"""What must hold after every fault, read from PostgreSQL: one count for one tenant.

accepted = succeeded + failed + cancelled, nothing queued or running, one set of tags for each job that succeeded and
none for any other. A trigger writes down every ending, so that a job that ended twice is seen although its second
ending would look like the first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Engine, text

from catalog.database import transaction, without_time_limits

_WATCH = """
CREATE TABLE endings (job_id text NOT NULL, status text NOT NULL);
CREATE INDEX ON endings (job_id);
CREATE FUNCTION note_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO endings VALUES (NEW.id, NEW.status); RETURN NULL; END $$;
CREATE TRIGGER note_ending AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (NEW.status IN ('succeeded', 'failed', 'cancelled')) EXECUTE FUNCTION note_ending();
"""

# The stand-in gives every product one tag, its title: another number or another value is not its set of tags.
_COUNT = text(
    """
    SELECT count(*) AS accepted,
        count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE status IN ('queued', 'running')) AS stuck,
        count(*) FILTER (WHERE status = 'succeeded' AND NOT (own > 0 AND embeddings > 0 AND shown)) AS untagged,
        count(*) FILTER (WHERE ended > 1 OR tags > 1 OR embeddings > 1
                         OR status <> 'succeeded' AND tags > 0 OR tags > own) AS doubled
    FROM (
        SELECT jobs.id, jobs.status,
            (SELECT count(*) FROM endings WHERE endings.job_id = jobs.id) AS ended,
            (SELECT count(*) FROM tags WHERE tags.job_id = jobs.id) AS tags,
            (SELECT count(*) FROM tags WHERE tags.job_id = jobs.id AND tags.value = products.title) AS own,
            (SELECT count(*) FROM embeddings WHERE embeddings.job_id = jobs.id) AS embeddings,
            products.tagged_job_id = jobs.id AS shown
        FROM jobs JOIN products ON products.id = jobs.product_id
        WHERE jobs.tenant_id = :tenant
    ) AS each
    """
)
_UNKNOWN = text(
    "SELECT count(*) FROM unnest(CAST(:ids AS text[])) AS told (id)"
    " WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = told.id)"
)


@dataclass(frozen=True)
class Count:
    """`lost`: told to be accepted and without a row, or never ended, or succeeded without its tags. `doubled`: ended
    twice, or with tags that are not its own one set.
    """

    accepted: int
    succeeded: int
    failed: int
    cancelled: int
    lost: int
    doubled: int


def watch_endings(engine: Engine) -> None:
    """Has every ending of a job written down from now on."""
    with transaction(engine) as session:
        session.execute(text(_WATCH))


def count(engine: Engine, tenant_id: str, told: Collection[str]) -> Count:
    """`told` are the ids of the jobs that a seller was told of."""
    with engine.connect() as connection:
        without_time_limits(connection)
        row = connection.execute(_COUNT, {"tenant": tenant_id}).one()
        unknown = connection.execute(_UNKNOWN, {"ids": list(told)}).scalar_one()
        connection.invalidate()
    return Count(
        accepted=row.accepted,
        succeeded=row.succeeded,
        failed=row.failed,
        cancelled=row.cancelled,
        lost=row.stuck + row.untagged + unknown,
        doubled=row.doubled,
    )


def holds(found: Count) -> bool:
    """Whether nothing was lost and nothing doubled."""
    ended = found.succeeded + found.failed + found.cancelled
    return found.accepted == ended and found.lost == 0 and found.doubled == 0
