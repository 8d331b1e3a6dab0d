"""Products: what a seller uploads, and how each upload or change becomes a job.

`accept` and `revise` write the product and its job in one transaction; the queue's message is sent after it. A
change makes the product's next revision with a job of its own: a job still queued for an older revision is
cancelled, one that runs may finish, but its tags never replace newer ones.

Whoever locks a product and its jobs locks the product first.
"""

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import EllipsisType
from typing import Any

from sqlalchemy import Row, delete, func, select, text, update
from sqlalchemy.orm import Session

from catalog import idempotency as idempotency_records
from catalog import photos as held_photos
from catalog.errors import EmptyProduct, InvalidCursor, NotFound
from catalog.idempotency import IdempotencyKey
from catalog.identifiers import new_id
from catalog.lanes import require_room
from catalog.settings import Settings
from catalog.tables import Embedding, Job, Photo, Product, ProductPhoto, Tag
from catalog.tags import tags_of
from catalog.views import DELETED, SUPERSEDED, JobView, Lane, PhotoRef, ProductView

PRODUCT_ID = re.compile(r"prd_[0-9a-f]{32}")

# Plain SQL where every request passes: SQLAlchemy's way to the same statements costs several times the CPU.
_INSERT_PRODUCT = text(
    """
    INSERT INTO products (id, tenant_id, external_id, title, description, job_id)
    VALUES (:id, :tenant_id, :external_id, :title, :description, :job_id)
    RETURNING created_at
    """
)
_INSERT_JOB = text(
    """
    INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at)
    VALUES (:id, :tenant_id, :product_id, :revision, :lane, now() + CAST(:resend_after AS interval))
    RETURNING submitted_at
    """
)


def accept(
    session: Session,
    *,
    tenant_id: str,
    title: str,
    description: str,
    external_id: str | None,
    photos: Sequence[PhotoRef],
    lane: Lane,
    idempotency: IdempotencyKey | None,
    settings: Settings,
) -> tuple[ProductView, JobView]:
    """Writes a new product and its queued job; the photos are in the photo store already.

    With an idempotency key, `idempotency.begin` came before, and `idempotency.complete` follows in the same
    transaction. Raises EmptyProduct, QueueFull, or IdempotencyInProgress where the key was lost to a twin.
    """
    if not title.strip() and not photos:
        raise EmptyProduct
    if idempotency is not None:
        idempotency_records.hold(session, idempotency)
    require_room(session, lane, tenant_id, settings)
    product_id, job_id = new_id("prd"), new_id("job")
    now: datetime = session.execute(
        _INSERT_PRODUCT,
        {
            "id": product_id,
            "tenant_id": tenant_id,
            "external_id": external_id,
            "title": title,
            "description": description,
            "job_id": job_id,
        },
    ).scalar_one()
    held_photos.hold(session, tenant_id, product_id, photos)
    job = _insert_job(session, job_id, tenant_id, product_id, 1, lane, settings)
    product = ProductView(
        id=product_id,
        external_id=external_id,
        title=title,
        description=description,
        photos=tuple(photos),
        tags=None,
        job_id=job_id,
        created_at=now,
        updated_at=now,
    )
    return product, job


def revise(
    session: Session,
    tenant_id: str,
    product_id: str,
    *,
    title: str | EllipsisType = ...,
    description: str | EllipsisType = ...,
    photos: Sequence[PhotoRef] | EllipsisType = ...,
    lane: Lane,
    settings: Settings,
) -> tuple[ProductView, JobView]:
    """Changes what is given (`...` leaves a part as it is) and queues a job for the new revision.

    Photos that are replaced stay in the store for a while, for an older job that may be reading them; the sweep
    removes them. Raises NotFound, EmptyProduct or QueueFull.
    """
    product = _locked(session, tenant_id, product_id)
    # First: the new job takes the place of the one that it makes superfluous.
    session.execute(
        update(Job)
        .where(Job.product_id == product_id, Job.status == "queued")
        .values(status="cancelled", finished_at=func.now(), error=SUPERSEDED)
    )
    require_room(session, lane, tenant_id, settings)
    if not isinstance(photos, EllipsisType):
        held_photos.replace(session, tenant_id, product_id, photos)
    changes: dict[str, Any] = {
        name: value for name, value in (("title", title), ("description", description)) if value is not ...
    }
    job_id = new_id("job")
    revision = product.revision + 1
    session.execute(
        update(Product)
        .where(Product.id == product_id)
        .values(**changes, revision=revision, job_id=job_id, updated_at=func.now())
    )
    job = _insert_job(session, job_id, tenant_id, product_id, revision, lane, settings)
    view = get_product(session, tenant_id, product_id)
    if not view.title.strip() and not view.photos:
        raise EmptyProduct
    return view, job


def get_product(session: Session, tenant_id: str, product_id: str) -> ProductView:
    """The product with its current tags. Raises NotFound, also for another tenant's."""
    row = session.execute(
        _PRODUCT.where(Product.id == product_id, Product.tenant_id == tenant_id)
    ).one_or_none()
    if row is None:
        raise NotFound("product", product_id)
    return _views(session, [row])[0]


def list_products(
    session: Session, tenant_id: str, limit: int, cursor: str | None = None
) -> tuple[list[ProductView], str | None]:
    """One page of products, newest first, and the cursor of the next page or None.

    Walking all pages gives every product that was there at the start exactly once, whatever is added meanwhile:
    newer products come before the first page. Raises InvalidCursor.
    """
    page = _PRODUCT.where(Product.tenant_id == tenant_id).order_by(Product.id.desc()).limit(limit + 1)
    if cursor is not None:
        page = page.where(Product.id < _decode_cursor(cursor))
    rows = session.execute(page).all()
    views = _views(session, rows[:limit])
    more = len(rows) > limit
    return views, _encode_cursor(views[-1].id) if more and views else None


def delete_product(session: Session, tenant_id: str, product_id: str) -> list[str]:
    """Deletes the product with its tags and embeddings; returns the ids of photos that nobody holds any more.

    After the transaction give these ids to `photos.remove_released`. The product's jobs stay as bare records; one
    that had not ended is cancelled. Raises NotFound.
    """
    _locked(session, tenant_id, product_id)
    session.execute(
        update(Job)
        .where(Job.product_id == product_id, Job.status.in_(("queued", "running")))
        .values(status="cancelled", finished_at=func.now(), lease_until=None, lease_token=None, error=DELETED)
    )
    of_product = select(Job.id).where(Job.product_id == product_id)
    session.execute(delete(Tag).where(Tag.job_id.in_(of_product)))
    session.execute(delete(Embedding).where(Embedding.product_id == product_id))
    freed = held_photos.release(session, tenant_id, product_id)
    session.execute(delete(Product).where(Product.id == product_id))
    return freed


_PRODUCT = select(
    Product.id,
    Product.external_id,
    Product.title,
    Product.description,
    Product.job_id,
    Product.tagged_job_id,
    Product.created_at,
    Product.updated_at,
)


def _views(session: Session, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[ProductView]:
    """Adds photos and tags: two queries, however many products."""
    if not rows:
        return []
    photos: dict[str, list[PhotoRef]] = defaultdict(list)
    held = (
        select(ProductPhoto.product_id, Photo.id, Photo.width, Photo.height, Photo.bytes, Photo.media_type)
        .join(Photo, (Photo.tenant_id == ProductPhoto.tenant_id) & (Photo.id == ProductPhoto.photo_id))
        .where(ProductPhoto.product_id.in_([row.id for row in rows]))
        .order_by(ProductPhoto.product_id, ProductPhoto.position)
    )
    for row in session.execute(held):
        ref = PhotoRef(row.id, row.width, row.height, row.bytes, row.media_type)
        photos[row.product_id].append(ref)
    tags = tags_of(session, [row.tagged_job_id for row in rows if row.tagged_job_id is not None])
    return [
        ProductView(
            id=row.id,
            external_id=row.external_id,
            title=row.title,
            description=row.description,
            photos=tuple(photos[row.id]),
            tags=None if row.tagged_job_id is None else tags[row.tagged_job_id],
            job_id=row.job_id,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in rows
    ]


def _locked(session: Session, tenant_id: str, product_id: str) -> Row[*tuple[Any, ...]]:
    row = session.execute(
        select(Product.id, Product.revision)
        .where(Product.id == product_id, Product.tenant_id == tenant_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFound("product", product_id)
    return row


def _insert_job(
    session: Session,
    job_id: str,
    tenant_id: str,
    product_id: str,
    revision: int,
    lane: Lane,
    settings: Settings,
) -> JobView:
    # Whoever accepted the job sends its message right after the commit; the sweep looks later.
    submitted_at: datetime = session.execute(
        _INSERT_JOB,
        {
            "id": job_id,
            "tenant_id": tenant_id,
            "product_id": product_id,
            "revision": revision,
            "lane": lane,
            "resend_after": timedelta(seconds=settings.resend_after_s),
        },
    ).scalar_one()
    return JobView(
        id=job_id,
        product_id=product_id,
        status="queued",
        lane=lane,
        attempts=0,
        submitted_at=submitted_at,
        started_at=None,
        finished_at=None,
        model_name=None,
        model_version=None,
        tags=None,
        error=None,
    )


def _encode_cursor(product_id: str) -> str:
    return base64.urlsafe_b64encode(product_id.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> str:
    try:
        product_id = base64.b64decode(
            cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        ).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor from error
    if not PRODUCT_ID.fullmatch(product_id):  # whatever else it holds, a NUL say, must not reach the database
        raise InvalidCursor
    return product_id
