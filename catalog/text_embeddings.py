"""What a checkpoint's text tower made of the texts of a tenant: a cache, so that new photos beside the same text, or a
text that comes again, cost no text forward.

Like `photo_embeddings` it is read with the claim of a message and written with the end of its jobs, each in one
statement. Nobody owns a text, so a row goes by age alone; it holds a hash and never the text.
"""

import hashlib
from collections.abc import Collection, Mapping
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

TenantText = tuple[str, str]  # tenant id, text id

_RECALL = text(
    """
    SELECT tenant_id, text_id, embedding FROM text_embeddings
    WHERE (tenant_id, text_id) IN (SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:texts AS text[])))
      AND model_version = :version AND created_at > now() - CAST(:max_age AS interval)
    """
)
# In order, so that two workers that write the same texts wait for each other and never in a circle.
_REMEMBER = text(
    """
    INSERT INTO text_embeddings (tenant_id, text_id, model_version, embedding)
    SELECT * FROM unnest(
        CAST(:tenants AS text[]), CAST(:texts AS text[]), CAST(:versions AS text[]), CAST(:embeddings AS bytea[])
    ) ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING
    """
)
_PRUNE = text(
    """
    WITH pruned AS (
        DELETE FROM text_embeddings WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM text_embeddings WHERE created_at <= now() - CAST(:max_age AS interval)
            ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM pruned
    """
)


def text_id(title: str, description: str) -> str | None:
    """The hash of a text as a model reads it, in hexadecimal; None where there is nothing to read."""
    read = (title.strip(), description.strip())
    # PostgreSQL holds no text with a NUL, so none can move from one to the other.
    return hashlib.sha256("\0".join(read).encode()).hexdigest() if any(read) else None


def recall(
    session: Session, texts: Collection[TenantText], model_version: str, max_age_days: float
) -> dict[TenantText, bytes]:
    """What is remembered of the texts for that checkpoint, in one statement. An age of 0 days recalls nothing."""
    if not texts or not max_age_days:
        return {}
    rows = session.execute(
        _RECALL,
        {
            "tenants": [tenant_id for tenant_id, _ in texts],
            "texts": [of for _, of in texts],
            "version": model_version,
            "max_age": timedelta(days=max_age_days),
        },
    )
    return {(row.tenant_id, row.text_id): bytes(row.embedding) for row in rows}


def remember(session: Session, embeddings: Mapping[tuple[str, str, str], bytes]) -> None:
    """Writes what is not there yet, by tenant, text and model version, in one statement."""
    if not embeddings:
        return
    session.execute(
        _REMEMBER,
        {
            "tenants": [tenant_id for tenant_id, _, _ in embeddings],
            "texts": [of for _, of, _ in embeddings],
            "versions": [version for _, _, version in embeddings],
            "embeddings": list(embeddings.values()),
        },
    )


def prune(session: Session, max_age_days: float, limit: int) -> int:
    """Removes up to `limit` rows that are older, oldest first; returns how many."""
    parameters = {"max_age": timedelta(days=max_age_days), "limit": limit}
    return int(session.execute(_PRUNE, parameters).scalar_one())
