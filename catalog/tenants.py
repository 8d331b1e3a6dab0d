"""Tenants and their API keys. A key is shown once, when it is made; only its SHA-256 is kept.

A plain hash suffices because a key is 256 random bits: there is nothing to guess, so nothing to slow down, and the
hash finds the row by its index.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from catalog.identifiers import new_id
from catalog.tables import ApiKey, Tenant

KEY_PREFIX = "tsk_"
KEY_BYTES = 32
ID_DIGITS = 16  # of a hash: two keys never share them
# Every request asks this.
_TENANT_OF = text("SELECT tenant_id FROM api_keys WHERE hash = :hash")


def create_tenant(session: Session, name: str) -> Tenant:
    """Makes the tenant, or finds the one of that name."""
    session.execute(
        upsert(Tenant).values(id=new_id("ten"), name=name).on_conflict_do_nothing(index_elements=["name"])
    )
    return session.execute(select(Tenant).where(Tenant.name == name)).scalar_one()


def create_api_key(session: Session, tenant_id: str, name: str) -> str:
    """Makes a key for the tenant and returns it: the only time it can be seen."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    session.execute(insert(ApiKey).values(hash=hash_key(key), tenant_id=tenant_id, name=name))
    return key


@dataclass(frozen=True)
class KeyView:
    """A key as far as it may be shown: `id` is the beginning of its hash and opens nothing."""

    id: str
    tenant: str
    name: str
    created_at: datetime


def api_keys(session: Session, tenant: str | None = None) -> list[KeyView]:
    """The keys of the tenant of this name, or of all, the oldest first."""
    rows = (
        select(ApiKey.hash, Tenant.name, ApiKey.name, ApiKey.created_at)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .order_by(ApiKey.created_at, ApiKey.hash)
    )
    if tenant is not None:
        rows = rows.where(Tenant.name == tenant)
    return [
        KeyView(of[:ID_DIGITS], owner, name, created_at)
        for of, owner, name, created_at in session.execute(rows)
    ]


def revoke_api_key(session: Session, key_id: str) -> bool:
    """From the next request on the key of this id opens nothing; False where there is none."""
    revoked = session.execute(
        delete(ApiKey).where(func.left(ApiKey.hash, ID_DIGITS) == key_id).returning(ApiKey.hash)
    )
    return bool(revoked.all())


def authenticate(session: Session, key: str) -> str | None:
    """The id of the key's tenant, or None for a key that is not ours."""
    return tenant_of(session, hash_key(key)) if key.startswith(KEY_PREFIX) else None


def tenant_of(session: Session, key_hash: str) -> str | None:
    """The same for what is stored of a key."""
    tenant_id: str | None = session.execute(_TENANT_OF, {"hash": key_hash}).scalar_one_or_none()
    return tenant_id


def hash_key(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
