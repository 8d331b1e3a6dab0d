"""Which products hold which photos, and when the bytes of a photo may go.

A photo's bytes are stored once for all tenants, so nobody may remove them because one product went away. Three
rules keep a photo from vanishing under a product that has just been accepted:

1. `hold` takes a shared lock on the photo's name until the accepting transaction ends; `remove_released` takes the
   exclusive one from its look at the references until the bytes are gone.
2. Whoever accepts a product puts the bytes into the store before the transaction, and again after it: the second
   `put` finds them there, except when they were removed in between.
3. A photo that a PATCH replaced, or that a request has announced, stays for a while, because an older job may be
   reading it, or the request may come to hold it.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Engine, delete, func, select, text, update
from sqlalchemy.orm import Session

from catalog.database import transaction
from catalog.errors import StoreUnavailable
from catalog.photo_store import PATIENCE_S, PhotoStore
from catalog.tables import Photo, ProductPhoto
from catalog.views import PhotoRef

REFUSALS = 10  # of a store that is away; a few photos that it cannot remove keep no others

log = structlog.get_logger(__name__)

# Twice what a store is waited for: a session that was ended meanwhile would have given the lock away, and a photo that
# somebody sends now would be deleted with the old one.
_WHILE_THE_STORE_DELETES = text(f"SET LOCAL idle_in_transaction_session_timeout = '{2 * PATIENCE_S:g}s'")
_LOCK_SHARED = text(
    "SELECT pg_advisory_xact_lock_shared(hashtextextended(id, 0)) FROM unnest(CAST(:ids AS text[])) AS id"
)
_GIVEN = """
    SELECT * FROM unnest(
        CAST(:ids AS text[]), CAST(:widths AS int[]), CAST(:heights AS int[]), CAST(:sizes AS bigint[]),
        CAST(:media_types AS text[])
    ) AS photo (id, width, height, bytes, media_type)
"""
# The conflict also locks a row that needs no change, so that a `release` under way sees our reference or waits.
_KNOW = """
    INSERT INTO photos (tenant_id, id, width, height, bytes, media_type)
    SELECT :tenant_id, photo.* FROM ({photos}) AS photo ORDER BY id
    ON CONFLICT (tenant_id, id) DO UPDATE SET released_at = NULL WHERE photos.released_at IS NOT NULL
"""
# What a crash of PostgreSQL loses with it is the mark alone, and waiting for its disk would be felt.
_ANNOUNCE = text(
    f"""
    WITH unsynced AS (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO photos (tenant_id, id, width, height, bytes, media_type, released_at)
    SELECT :tenant_id, photo.*, now() FROM ({_GIVEN}) AS photo, unsynced ORDER BY id
    ON CONFLICT (tenant_id, id) DO UPDATE SET released_at = now() WHERE photos.released_at IS NOT NULL
    """
)
_HOLD = text(
    f"""
    WITH known AS ({_KNOW.format(photos=_GIVEN)})
    INSERT INTO product_photos (product_id, position, tenant_id, photo_id)
    SELECT :product_id, position - 1, :tenant_id, id
    FROM unnest(CAST(:in_order AS text[])) WITH ORDINALITY AS held (id, position)
    """
)
# Locks rows by inserting them: one that is not there yet must be locked in its turn as well.
_LOCK_OLD_AND_NEW = text(
    _KNOW.format(
        photos=f"""{_GIVEN} UNION ALL
        SELECT id, width, height, bytes, media_type FROM photos
        WHERE tenant_id = :tenant_id AND id <> ALL(CAST(:ids AS text[]))
          AND id IN (SELECT photo_id FROM product_photos WHERE product_id = :product_id)"""
    )
)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:id, 0))")


def announce(session: Session, tenant_id: str, photos: Sequence[PhotoRef]) -> None:
    """Before their bytes are stored: photos that nobody comes to `hold` are released ones, and removed in time."""
    session.execute(_ANNOUNCE, {**_given(photos), "tenant_id": tenant_id})


def hold(session: Session, tenant_id: str, product_id: str, photos: Sequence[PhotoRef]) -> None:
    """Makes these the product's photos, in this order. The product must have none yet."""
    if not photos:
        return
    given = _given(photos)
    session.execute(_LOCK_SHARED, {"ids": given["ids"]})
    session.execute(
        _HOLD,
        {
            **given,
            "tenant_id": tenant_id,
            "product_id": product_id,
            "in_order": [photo.id for photo in photos],
        },
    )


def replace(session: Session, tenant_id: str, product_id: str, photos: Sequence[PhotoRef]) -> None:
    """Makes these the product's photos in place of those it has."""
    if photos:
        given = _given(photos)
        # Before any row: whoever removes a photo locks its name first and its row then.
        session.execute(_LOCK_SHARED, {"ids": given["ids"]})
        # Rows of both at once: two products that swap photos would each let go of one and wait for the other's.
        session.execute(_LOCK_OLD_AND_NEW, {**given, "tenant_id": tenant_id, "product_id": product_id})
    release(session, tenant_id, product_id)
    hold(session, tenant_id, product_id, photos)


def _given(photos: Sequence[PhotoRef]) -> dict[str, list[Any]]:
    """Each photo once, by column. In the order of ids: products that take the same photos wait, and never in a circle.

    This holds for transactions that lock all their photos in one statement, as `replace` takes care to.
    """
    distinct = {photo.id: photo for photo in sorted(photos, key=lambda photo: photo.id)}
    return {
        "ids": list(distinct),
        "widths": [photo.width for photo in distinct.values()],
        "heights": [photo.height for photo in distinct.values()],
        "sizes": [photo.bytes for photo in distinct.values()],
        "media_types": [photo.media_type for photo in distinct.values()],
    }


def release(session: Session, tenant_id: str, product_id: str) -> list[str]:
    """Takes all photos from the product; returns the ids of those that no product of any tenant holds now."""
    freed = session.execute(
        delete(ProductPhoto).where(ProductPhoto.product_id == product_id).returning(ProductPhoto.photo_id)
    ).scalars()
    photo_ids = sorted(set(freed))
    if not photo_ids:
        return []
    mine = (Photo.tenant_id == tenant_id) & Photo.id.in_(photo_ids)
    # Locked first, in a statement of its own: the next one then sees every reference committed before.
    session.execute(select(Photo.id).where(mine).order_by(Photo.id).with_for_update())
    held = select(ProductPhoto).where(
        ProductPhoto.tenant_id == Photo.tenant_id, ProductPhoto.photo_id == Photo.id
    )
    released = session.execute(
        update(Photo).where(mine, ~held.exists()).values(released_at=func.now()).returning(Photo.id)
    ).scalars()
    candidates = list(released)
    wanted = session.execute(
        select(Photo.id).where(Photo.id.in_(candidates), Photo.released_at.is_(None))
    ).scalars()
    return sorted(set(candidates) - set(wanted))


def remove_released(
    engine: Engine,
    store: PhotoStore,
    photo_ids: Sequence[str] | None = None,
    *,
    older_than_s: float = 0,
    limit: int = 100,
    within_s: float = float("inf"),
) -> int:
    """Removes bytes and rows of photos that nobody holds; returns how many photos went.

    Of `photo_ids`, or of all that were released more than `older_than_s` seconds ago; after `within_s` it begins with
    no other. Raises StoreUnavailable where the store refuses all of them, or REFUSALS. What it refuses stays marked,
    for the next time.
    """
    until = time.monotonic() + within_s
    if photo_ids is None:
        with transaction(engine) as session:
            due = func.now() - timedelta(seconds=older_than_s)
            # One that several tenants let go of comes once for each: to look for that would take all that are due.
            oldest = select(Photo.id).where(Photo.released_at <= due).order_by(Photo.released_at).limit(limit)
            photo_ids = list(dict.fromkeys(session.execute(oldest).scalars()))
    removed = refused = 0
    for photo_id in photo_ids:
        if time.monotonic() > until:
            break
        try:
            removed += _remove_if_free(engine, store, photo_id)
        except StoreUnavailable as error:
            refused += 1
            log.warning("photo not removed", photo_id=photo_id, reason=str(error))
            # To the end of the line: those that the store always refuses must not be all that is looked at.
            with transaction(engine) as session:
                again = update(Photo).where(Photo.id == photo_id, Photo.released_at.is_not(None))
                session.execute(again.values(released_at=func.now()))
            if refused == min(len(photo_ids), REFUSALS):
                raise
    return removed


def _remove_if_free(engine: Engine, store: PhotoStore, photo_id: str) -> bool:
    with transaction(engine) as session:
        session.execute(_LOCK, {"id": photo_id})
        # By way of the tenants that know it: no index of what products hold begins with a photo.
        of_photo = (ProductPhoto.tenant_id == Photo.tenant_id) & (ProductPhoto.photo_id == Photo.id)
        held = session.execute(
            select(ProductPhoto.product_id).join(Photo, of_photo).where(Photo.id == photo_id).limit(1)
        )
        if held.first() is not None:
            # Another tenant holds it: only the row of the tenant who let go is of no use any more.
            free = ~select(ProductPhoto).where(of_photo).exists()
            session.execute(delete(Photo).where(Photo.id == photo_id, Photo.released_at.is_not(None), free))
            return False
        session.execute(delete(Photo).where(Photo.id == photo_id))
        session.execute(_WHILE_THE_STORE_DELETES)
        # Inside the transaction: without the lock a product accepted meanwhile would lose its photo.
        store.delete(photo_id)
        return True
