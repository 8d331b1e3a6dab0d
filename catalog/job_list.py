"""Jobs of all tenants for the operator: which have failed and why, which of them can be tried again, and which are old.

No index is kept for it: it reads the whole table, which may take longer than a request may.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from catalog.database import transaction, without_time_limits
from catalog.jobs import LOCK_PRODUCTS
from catalog.views import Status

# In one transaction: a lock for each.
PART = 1000


@dataclass(frozen=True)
class JobLine:
    """One job; times are ISO 8601, `reason` is the detail of its problem."""

    id: str
    tenant: str
    lane: str
    status: str
    attempts: int
    submitted_at: str
    finished_at: str | None
    reason: str | None


_NEWEST = text(
    """
    SELECT jobs.id, tenants.name AS tenant, lane, status, attempts, submitted_at, finished_at,
           error ->> 'detail' AS reason
    FROM jobs JOIN tenants ON tenants.id = jobs.tenant_id
    WHERE status = :status AND (CAST(:tenant AS text) IS NULL OR tenants.name = :tenant)
    ORDER BY coalesce(finished_at, submitted_at) DESC, jobs.id LIMIT :limit
    """
)
_FAILED = text(
    """
    SELECT jobs.id
    FROM jobs JOIN tenants ON tenants.id = jobs.tenant_id
    JOIN products ON products.id = jobs.product_id AND products.revision = jobs.revision
    WHERE status = 'failed' AND jobs.id > :after AND (CAST(:tenant AS text) IS NULL OR tenants.name = :tenant)
    ORDER BY jobs.id LIMIT :limit
    """
)


def newest(session: Session, status: Status, tenant: str | None, limit: int) -> list[JobLine]:
    """The jobs of the status that ended last, or came last where they have not ended."""
    without_time_limits(session.connection())
    rows = session.execute(_NEWEST, {"status": status, "tenant": tenant, "limit": limit}).mappings()
    return [
        JobLine(
            **{
                **row,
                "submitted_at": row["submitted_at"].isoformat(timespec="seconds"),
                "finished_at": row["finished_at"] and row["finished_at"].isoformat(timespec="seconds"),
            }
        )
        for row in rows
    ]


def failed(engine: Engine, tenant: str | None) -> Iterator[list[str]]:
    """The ids of the failed jobs whose product is still as it was, in parts; each job once, also if it fails again."""
    after = ""
    while True:
        with transaction(engine) as session:
            without_time_limits(session.connection())
            part = list(session.execute(_FAILED, {"tenant": tenant, "after": after, "limit": PART}).scalars())
        if not part:
            return
        yield part
        after = part[-1]


# A job that ended is named by a product from that moment on or never: none of these becomes the current one again.
_OLD = text(
    """
    SELECT jobs.id, jobs.product_id FROM jobs
    WHERE jobs.id > :after AND finished_at < now() - CAST(:age AS interval)
      AND NOT EXISTS (
          SELECT 1 FROM products
          WHERE products.id = jobs.product_id AND jobs.id IN (products.job_id, products.tagged_job_id)
      )
    ORDER BY jobs.id LIMIT :limit
    """
)
_DELETE = text("DELETE FROM jobs WHERE id = ANY(CAST(:ids AS text[]))")


def prune(engine: Engine, older_than: timedelta) -> Iterator[int]:
    """Removes jobs that ended so long ago, with their tags, in parts, and yields how many each had.

    Those that a product names, its newest and the one whose tags it shows, stay.
    """
    after = ""
    while True:
        with transaction(engine) as session:
            without_time_limits(session.connection())
            part = session.execute(_OLD, {"after": after, "age": older_than, "limit": PART}).all()
            # As whoever locks products and jobs: a deletion of one of them takes the same tags and embeddings away.
            session.execute(LOCK_PRODUCTS, {"ids": [row.product_id for row in part]})
            session.execute(_DELETE, {"ids": [row.id for row in part]})
        if not part:
            return
        yield len(part)
        after = part[-1].id
