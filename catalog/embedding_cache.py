"""What a checkpoint's towers made of the photos and texts of a tenant: a cache, so that an edited title costs no photo
forward, and new photos or a text that comes again no text forward.

It is read with the claim of a message and written with the end of its jobs, each in one statement. Nothing here may be
missed: whatever is absent is computed again. Knows no checkpoint beyond the version of its features and nothing of what
the bytes mean.
"""

import hashlib
from collections.abc import Collection, Mapping
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

TenantItem = tuple[str, str]  # tenant id, id of a photo or of a text

_RECALL = """
    SELECT tenant_id, {item}, embedding FROM {table}
    WHERE (tenant_id, {item}) IN (SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:items AS text[])))
      AND model_version = :version AND created_at > now() - CAST(:max_age AS interval)
"""
# In order, so that two workers that write the same rows wait for each other and never in a circle.
_REMEMBER = """
    WITH given AS (
        SELECT * FROM unnest(
            CAST(:tenants AS text[]), CAST(:items AS text[]), CAST(:versions AS text[]), CAST(:embeddings AS bytea[])
        ) AS given (tenant_id, item, model_version, embedding)
    ){held}
    INSERT INTO {table} (tenant_id, {item}, model_version, embedding)
    SELECT given.* FROM given{join} ORDER BY given.tenant_id, given.item, given.model_version
    ON CONFLICT DO NOTHING
"""
_PRUNE = """
    WITH pruned AS (
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM {table} WHERE created_at <= now() - CAST(:max_age AS interval)
            ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM pruned
"""
# A photo that is being taken away right now is skipped, and so is one that has gone: nobody is waited for, so this is
# part of no deadlock, and the lock on the others keeps the reference whole.
_HELD_PHOTOS = """, held AS (
        SELECT photos.tenant_id, photos.id FROM photos
        WHERE (photos.tenant_id, photos.id) IN (SELECT tenant_id, item FROM given)
        FOR KEY SHARE SKIP LOCKED
    )"""
_OF_HELD_PHOTOS = " JOIN held ON held.tenant_id = given.tenant_id AND held.id = given.item"


class EmbeddingCache:
    """The rows of one table; `item` is its column of ids. They go by age."""

    def __init__(self, table: str, item: str, held: str = "", join: str = "") -> None:
        self._recall = text(_RECALL.format(table=table, item=item))
        self._remember = text(_REMEMBER.format(table=table, item=item, held=held, join=join))
        self._prune = text(_PRUNE.format(table=table))

    def recall(
        self, session: Session, items: Collection[TenantItem], model_version: str, max_age_days: float
    ) -> dict[TenantItem, bytes]:
        """What is remembered of them for that checkpoint, in one statement. An age of 0 days recalls nothing."""
        if not items or not max_age_days:
            return {}
        rows = session.execute(
            self._recall,
            {
                "tenants": [tenant_id for tenant_id, _ in items],
                "items": [item for _, item in items],
                "version": model_version,
                "max_age": timedelta(days=max_age_days),
            },
        )
        return {(tenant_id, item): bytes(embedding) for tenant_id, item, embedding in rows}

    def remember(self, session: Session, embeddings: Mapping[tuple[str, str, str], bytes]) -> None:
        """Writes what is not there yet, by tenant, item and model version, in one statement."""
        if not embeddings:
            return
        session.execute(
            self._remember,
            {
                "tenants": [tenant_id for tenant_id, _, _ in embeddings],
                "items": [item for _, item, _ in embeddings],
                "versions": [version for _, _, version in embeddings],
                "embeddings": list(embeddings.values()),
            },
        )

    def prune(self, session: Session, max_age_days: float, limit: int) -> int:
        """Removes up to `limit` rows that are older, oldest first; returns how many."""
        parameters = {"max_age": timedelta(days=max_age_days), "limit": limit}
        return int(session.execute(self._prune, parameters).scalar_one())


# A row of a photo goes with the photo as well. Nobody owns a text: its rows hold a hash and never the text.
PHOTOS = EmbeddingCache("photo_embeddings", "photo_id", _HELD_PHOTOS, _OF_HELD_PHOTOS)
TEXTS = EmbeddingCache("text_embeddings", "text_id")


def text_id(title: str, description: str) -> str | None:
    """The hash of a text as a model reads it, in hexadecimal; None where there is nothing to read."""
    read = (title.strip(), description.strip())
    # PostgreSQL holds no text with a NUL, so none can move from one to the other.
    # A description without a title was read as one before: what is remembered of that is of another text.
    between = "\0" if read[0] else "\0\0"
    return hashlib.sha256(between.join(read).encode()).hexdigest() if any(read) else None
