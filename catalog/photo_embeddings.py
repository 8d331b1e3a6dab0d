"""What a checkpoint's photo tower made of the photos of a tenant: a cache, so that an edited title costs no photo
forward.

It is read with the claim of a message and written with the end of its jobs, each in one statement. A row goes with
its photo, and by age. Nothing here may be missed: whatever is absent is computed again. Knows no checkpoint beyond
its version and nothing of what the bytes mean.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

TenantPhoto = tuple[str, str]  # tenant id, photo id

_RECALL = text(
    """
    SELECT tenant_id, photo_id, embedding FROM photo_embeddings
    WHERE (tenant_id, photo_id) IN (SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:photos AS text[])))
      AND model_version = :version AND created_at > now() - CAST(:max_age AS interval)
    """
)
# A photo that is being taken away right now is skipped, and so is one that has gone: nobody is waited for, so this is
# part of no deadlock, and the lock on the others keeps the reference whole.
_REMEMBER = text(
    """
    WITH given AS (
        SELECT * FROM unnest(
            CAST(:tenants AS text[]), CAST(:photos AS text[]), CAST(:versions AS text[]), CAST(:embeddings AS bytea[])
        ) AS given (tenant_id, photo_id, model_version, embedding)
    ), held AS (
        SELECT photos.tenant_id, photos.id FROM photos
        WHERE (photos.tenant_id, photos.id) IN (SELECT tenant_id, photo_id FROM given)
        FOR KEY SHARE SKIP LOCKED
    )
    INSERT INTO photo_embeddings (tenant_id, photo_id, model_version, embedding)
    SELECT given.* FROM given JOIN held ON held.tenant_id = given.tenant_id AND held.id = given.photo_id
    ORDER BY given.tenant_id, given.photo_id, given.model_version
    ON CONFLICT DO NOTHING
    """
)
_PRUNE = text(
    """
    WITH pruned AS (
        DELETE FROM photo_embeddings WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM photo_embeddings WHERE created_at <= now() - CAST(:max_age AS interval)
            ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM pruned
    """
)


def recall(
    session: Session, photos: Collection[TenantPhoto], model_version: str, max_age_days: float
) -> dict[TenantPhoto, bytes]:
    """What is remembered of the photos for that checkpoint, in one statement. An age of 0 days recalls nothing."""
    if not photos or not max_age_days:
        return {}
    rows = session.execute(
        _RECALL,
        {
            "tenants": [tenant_id for tenant_id, _ in photos],
            "photos": [photo_id for _, photo_id in photos],
            "version": model_version,
            "max_age": timedelta(days=max_age_days),
        },
    )
    return {(row.tenant_id, row.photo_id): bytes(row.embedding) for row in rows}


def remember(session: Session, embeddings: Mapping[tuple[str, str, str], bytes]) -> None:
    """Writes what is not there yet, by tenant, photo and model version, in one statement."""
    if not embeddings:
        return
    session.execute(
        _REMEMBER,
        {
            "tenants": [tenant_id for tenant_id, _, _ in embeddings],
            "photos": [photo_id for _, photo_id, _ in embeddings],
            "versions": [version for _, _, version in embeddings],
            "embeddings": list(embeddings.values()),
        },
    )


def prune(session: Session, max_age_days: float, limit: int) -> int:
    """Removes up to `limit` rows that are older, oldest first; returns how many."""
    parameters = {"max_age": timedelta(days=max_age_days), "limit": limit}
    return int(session.execute(_PRUNE, parameters).scalar_one())
