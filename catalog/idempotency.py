"""Idempotency keys as Stripe defines them: the first answer to a key is the answer to every repetition.

The order of use is `begin` (in a transaction of its own), the work, then `complete` in the same transaction as the
work; `release` where nothing was done, so that the client may mend the request and use the key again. A process
that dies in between leaves a lock that lapses; its half-done transaction is gone with it.

Knows nothing of HTTP but that an answer is a status, some headers and a body, which come back verbatim.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from catalog.errors import IdempotencyInProgress, IdempotencyMismatch
from catalog.settings import Settings
from catalog.tables import IdempotencyRecord


@dataclass(frozen=True)
class IdempotencyKey:
    """A tenant's key, the fingerprint of this request, and a token that tells this request from its twins."""

    tenant_id: str
    key: str
    fingerprint: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True)
class StoredAnswer:
    """The first answer, to be given again as it is."""

    status: int
    headers: dict[str, str]
    body: str


def fingerprint(parts: Iterable[bytes]) -> str:
    """A hash of a request's parts (method, path, fields, photos); parts cannot flow into each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


# Every request with a key runs these: statements that SQLAlchemy builds anew each time cost twice as much.
#
# Taken when new, when expired, or when the same request died: without an answer and past its lock. A lock that lies too
# far ahead was written before the database's clock was set back.
_TAKE = text(
    """
    INSERT INTO idempotency_records AS held (tenant_id, key, fingerprint, token, locked_until, expires_at)
    VALUES (:tenant_id, :key, :fingerprint, :token, now() + CAST(:lock_for AS interval),
            now() + CAST(:kept_for AS interval))
    ON CONFLICT (tenant_id, key) DO UPDATE SET
      fingerprint = excluded.fingerprint, token = excluded.token, locked_until = excluded.locked_until,
      expires_at = excluded.expires_at, status = NULL, headers = NULL, body = NULL
    WHERE held.expires_at <= now()
       OR (held.status IS NULL AND held.fingerprint = excluded.fingerprint
           AND (held.locked_until <= now() OR held.locked_until > now() + 2 * CAST(:lock_for AS interval)))
    RETURNING token
    """
)
_FIND = text(
    """
    SELECT fingerprint, status, headers, body FROM idempotency_records WHERE tenant_id = :tenant_id AND key = :key
    """
)
_OWN = "tenant_id = :tenant_id AND key = :key AND token = :token AND status IS NULL"
_HOLD = text(f"SELECT 1 FROM idempotency_records WHERE {_OWN} FOR UPDATE")
_COMPLETE = text(
    f"""
    UPDATE idempotency_records SET status = :status, headers = CAST(:headers AS jsonb), body = :body WHERE {_OWN}
    RETURNING 1
    """
)
_RELEASE = text(f"DELETE FROM idempotency_records WHERE {_OWN}")


def begin(session: Session, key: IdempotencyKey, settings: Settings) -> StoredAnswer | None:
    """Takes the key for this request, or returns the answer that was given before.

    Raises IdempotencyMismatch for another payload and IdempotencyInProgress while the first request still runs.
    """
    taken = session.execute(
        _TAKE,
        {
            **_own(key),
            "fingerprint": key.fingerprint,
            "lock_for": timedelta(seconds=settings.idempotency_lock_s),
            "kept_for": timedelta(seconds=settings.idempotency_ttl_s),
        },
    ).scalar_one_or_none()
    if taken is not None:
        return None
    found = session.execute(_FIND, {"tenant_id": key.tenant_id, "key": key.key}).one_or_none()
    if found is not None and found.fingerprint != key.fingerprint:
        raise IdempotencyMismatch(key.key)
    if found is None or found.status is None:  # None: released this moment; the client comes again
        raise IdempotencyInProgress(key.key)
    return StoredAnswer(found.status, found.headers or {}, found.body or "")


def hold(session: Session, key: IdempotencyKey) -> None:
    """Makes sure, inside the transaction of the work, that the key is still this request's.

    Raises IdempotencyInProgress where this request was so slow that its lock lapsed and a twin took the key.
    """
    if session.execute(_HOLD, _own(key)).scalar_one_or_none() is None:
        raise IdempotencyInProgress(key.key)


def complete(
    session: Session, key: IdempotencyKey, status: int, headers: Mapping[str, str], body: str
) -> None:
    """Stores the answer; in the transaction of the work, so that the two exist together or not at all.

    Raises IdempotencyInProgress like `hold`.
    """
    answer = {"status": status, "headers": json.dumps(dict(headers)), "body": body}
    if session.execute(_COMPLETE, _own(key) | answer).scalar_one_or_none() is None:
        raise IdempotencyInProgress(key.key)


def release(session: Session, key: IdempotencyKey) -> None:
    """Gives the key back unused. A key that has its answer, or is in other hands, is left alone."""
    session.execute(_RELEASE, _own(key))


def _own(key: IdempotencyKey) -> dict[str, str]:
    return {"tenant_id": key.tenant_id, "key": key.key, "token": key.token}


def prune(session: Session, limit: int) -> int:
    """Deletes up to `limit` records whose time is over; returns how many."""
    record = IdempotencyRecord
    expired = (
        select(record.tenant_id, record.key)
        .where(record.expires_at <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    pruned = session.execute(
        delete(record)
        .where(record.tenant_id == expired.c.tenant_id, record.key == expired.c.key)
        .returning(record.key)
    )
    return len(pruned.all())
