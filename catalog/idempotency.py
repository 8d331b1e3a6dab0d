"""Idempotency keys as Stripe defines them: the first answer to a key is the answer to every repetition.

The order of use is `begin` (in a transaction of its own), the work, then `complete` in the same transaction as the
work; `release` where nothing was done, so that the client may mend the request and use the key again. A process
that dies in between leaves a lock that lapses; its half-done transaction is gone with it.

Knows nothing of HTTP but that an answer is a status, some headers and a body, which come back verbatim.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
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


def begin(session: Session, key: IdempotencyKey, settings: Settings) -> StoredAnswer | None:
    """Takes the key for this request, or returns the answer that was given before.

    Raises IdempotencyMismatch for another payload and IdempotencyInProgress while the first request still runs.
    """
    record = IdempotencyRecord
    lock_for = timedelta(seconds=settings.idempotency_lock_s)
    fresh = {
        "fingerprint": key.fingerprint,
        "token": key.token,
        "locked_until": func.now() + lock_for,
        "expires_at": func.now() + timedelta(seconds=settings.idempotency_ttl_s),
        "status": None,
        "headers": None,
        "body": None,
    }
    # Taken when new, when expired, or when the same request died: without an answer and past its lock. A lock that
    # lies too far ahead was written before the database's clock was set back.
    lapsed = (record.locked_until <= func.now()) | (record.locked_until > func.now() + 2 * lock_for)
    died = record.status.is_(None) & lapsed & (record.fingerprint == key.fingerprint)
    taken = session.execute(
        upsert(record)
        .values(tenant_id=key.tenant_id, key=key.key, **fresh)
        .on_conflict_do_update(
            index_elements=["tenant_id", "key"], set_=fresh, where=(record.expires_at <= func.now()) | died
        )
        .returning(record.token)
    ).scalar_one_or_none()
    if taken is not None:
        return None
    found = session.execute(
        select(record.fingerprint, record.status, record.headers, record.body).where(
            record.tenant_id == key.tenant_id, record.key == key.key
        )
    ).one_or_none()
    if found is not None and found.fingerprint != key.fingerprint:
        raise IdempotencyMismatch(key.key)
    if found is None or found.status is None:  # None: released this moment; the client comes again
        raise IdempotencyInProgress(key.key)
    return StoredAnswer(found.status, found.headers or {}, found.body or "")


def hold(session: Session, key: IdempotencyKey) -> None:
    """Makes sure, inside the transaction of the work, that the key is still this request's.

    Raises IdempotencyInProgress where this request was so slow that its lock lapsed and a twin took the key.
    """
    record = IdempotencyRecord
    held = session.execute(
        select(record.token)
        .where(
            record.tenant_id == key.tenant_id,
            record.key == key.key,
            record.token == key.token,
            record.status.is_(None),
        )
        .with_for_update()
    ).scalar_one_or_none()
    if held is None:
        raise IdempotencyInProgress(key.key)


def complete(
    session: Session, key: IdempotencyKey, status: int, headers: Mapping[str, str], body: str
) -> None:
    """Stores the answer; in the transaction of the work, so that the two exist together or not at all."""
    hold(session, key)
    record = IdempotencyRecord
    session.execute(
        update(record)
        .where(record.tenant_id == key.tenant_id, record.key == key.key)
        .values(status=status, headers=dict(headers), body=body)
    )


def release(session: Session, key: IdempotencyKey) -> None:
    """Gives the key back unused. A key that has its answer, or is in other hands, is left alone."""
    record = IdempotencyRecord
    session.execute(
        delete(record).where(
            record.tenant_id == key.tenant_id,
            record.key == key.key,
            record.token == key.token,
            record.status.is_(None),
        )
    )


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
