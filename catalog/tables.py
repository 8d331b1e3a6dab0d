"""The tables, and nothing that happens to them. Every row belongs to a tenant, itself or through its job.

The migrations make these tables; a test compares the two. All times are the database's own clock, in UTC: the
clock of a worker is never asked, so it may be wrong or jump.
"""

from datetime import datetime
from typing import Any, ClassVar

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalog.views import LANES, Lane

TIMESTAMPTZ = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    """Names every constraint by rule, so that a migration can name it again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: TIMESTAMPTZ, str: Text, dict[str, Any]: JSONB, float: Double}


class Tenant(Base):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """The key itself is shown once and never stored: only its SHA-256, which finds the row."""

    __tablename__ = "api_keys"

    hash: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Product(Base):
    """`revision` counts the contents a product has had; each revision has one job, the newest is `job_id`.

    `tagged_job_id` is the job whose tags are current and `tagged_revision` its revision: it only grows, so a slow
    job of an older revision cannot put its tags over newer ones.
    """

    __tablename__ = "products"
    # Pages are read by (tenant, id); ids sort by time.
    __table_args__ = (Index("ix_products_tenant_id_id", "tenant_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    external_id: Mapped[str | None]
    title: Mapped[str]
    description: Mapped[str]
    revision: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    job_id: Mapped[str]
    tagged_job_id: Mapped[str | None]
    tagged_revision: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Photo(Base):
    """What one tenant knows of one photo; the bytes are in the photo store, once for all tenants.

    `released_at` is set when the tenant's last product lets go of it: from then on the bytes may be removed.
    """

    __tablename__ = "photos"
    __table_args__ = (
        Index("ix_photos_id", "id"),
        Index("ix_photos_released_at", "released_at", postgresql_where=text("released_at IS NOT NULL")),
    )

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    released_at: Mapped[datetime | None]


class ProductPhoto(Base):
    """Which photos a product has, in which order."""

    __tablename__ = "product_photos"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "photo_id"], ["photos.tenant_id", "photos.id"]),
        Index("ix_product_photos_tenant_id_photo_id", "tenant_id", "photo_id"),
    )

    product_id: Mapped[str] = mapped_column(ForeignKey("products.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    tenant_id: Mapped[str]
    photo_id: Mapped[str]


class PhotoEmbedding(Base):
    """What the photo tower of one checkpoint made of a photo: a cache that may be emptied at any time.

    The tenant's own, although the bytes of equal photos are stored once: whether another tenant has a photo is
    nobody's business. It goes with the tenant's photo.
    """

    __tablename__ = "photo_embeddings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "photo_id"], ["photos.tenant_id", "photos.id"], ondelete="CASCADE"
        ),
        Index("ix_photo_embeddings_created_at", "created_at"),
    )

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    photo_id: Mapped[str] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(primary_key=True)
    # Nobody searches in it, so it is no vector of the database.
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TextEmbedding(Base):
    """What the text tower of one checkpoint made of a text, by the text's hash: a cache like that of photos."""

    __tablename__ = "text_embeddings"
    __table_args__ = (Index("ix_text_embeddings_created_at", "created_at"),)

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    text_id: Mapped[str] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(primary_key=True)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


def queued_in(lane: Lane) -> str:
    """The condition that a job is queued in the lane, in the words of the indexes that give queued jobs in an order.

    In these words no other index can serve. While a lane that was empty when the planner last looked at the table fills
    up, it takes reading the whole lane through any of them, and sorting it, for the least work: at each claim.
    """
    return f"CASE WHEN status = 'queued' THEN lane END = '{lane}'"


class Job(Base):
    """One request to tag one product. The row is the truth; the queue's message is a hint.

    `product_id` is no foreign key: a deleted product takes its content, tags and embedding along, while its jobs
    stay as bare records, so that accepted = succeeded + failed + cancelled + queued + running always holds, until an
    operator prunes old ones.

    not_before   a queued job put back after a fault of the world is not due earlier
    resend_at    from when on the sweep may send its message again: for a queued job that it has sent
                 before some time after that, for a running one the end of its lease
    resends      how often the sweep has sent it since the last attempt; each time it waits longer
    lease_token  made new by each claim; whoever holds it may write the outcome
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"),
        CheckConstraint("lane IN ('interactive', 'bulk')", name="lane"),
        CheckConstraint("(status = 'running') = (lease_token IS NOT NULL)", name="lease"),
        CheckConstraint("(status IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
        # Partial: they hold the live jobs only, so that a million ended ones cost the queue nothing.
        # By status: a sweep that leaves queued jobs due must not read past all of them to find a lapsed lease.
        Index(
            "ix_jobs_overdue",
            "lane",
            "status",
            "resend_at",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        *(
            Index(f"ix_jobs_queued_{lane}", "submitted_at", postgresql_where=text(queued_in(lane)))
            for lane in LANES
        ),
        # Those that only a message with their name brings back, see `catalog.claims`.
        Index(
            "ix_jobs_suspects",
            "lane",
            "resend_at",
            postgresql_where=text("status = 'queued' AND attempts >= 2 AND error IS NULL"),
        ),
        # Each lane by tenant: who waits, and which of its jobs came first.
        *(
            Index(
                f"ix_jobs_turns_{lane}", "tenant_id", "submitted_at", postgresql_where=text(queued_in(lane))
            )
            for lane in LANES
        ),
        Index("ix_jobs_product_id", "product_id"),
        # How fast a lane is worked off: its newest endings, whatever the number of older ones.
        Index(
            "ix_jobs_worked_off",
            "lane",
            "finished_at",
            postgresql_where=text("status IN ('succeeded', 'failed')"),
        ),
        # A queue table dies of its dead rows: vacuum after thousands, not after a fifth of the table.
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0.01,
                "autovacuum_vacuum_threshold": 1000,
                "fillfactor": 80,
            }
        },
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    product_id: Mapped[str]
    revision: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(server_default=text("'queued'"))
    lane: Mapped[str]
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    resend_at: Mapped[datetime]
    resends: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    lease_until: Mapped[datetime | None]
    lease_token: Mapped[str | None]
    worker: Mapped[str | None]
    submitted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    model_name: Mapped[str | None]
    model_version: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]


class LaneDepth(Base):
    """How many queued jobs a lane held a moment ago: counting a deep queue on each request would cost too much.

    `shares` says how many of them each tenant had, by its id; a tenant that is not in it had none.
    """

    __tablename__ = "lane_depths"

    lane: Mapped[str] = mapped_column(primary_key=True)
    queued: Mapped[int] = mapped_column(BigInteger)
    measured_at: Mapped[datetime]
    shares: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class LaneTurn(Base):
    """The tenant that a claim in the lane served last: the next one goes on behind it."""

    __tablename__ = "lane_turns"

    lane: Mapped[str] = mapped_column(primary_key=True)
    # A place in the order of ids and no foreign key: a tenant that is gone has one as well.
    tenant_id: Mapped[str]


class Tag(Base):
    """One tag of one job. The key makes a second set of tags for a job impossible."""

    __tablename__ = "tags"
    __table_args__ = (CheckConstraint("decision IN ('auto', 'review', 'abstain')", name="decision"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    attribute: Mapped[str]
    value: Mapped[str | None]
    confidence: Mapped[float]
    decision: Mapped[str]
    evidence_text: Mapped[float | None]
    evidence_photos: Mapped[float | None]
    alternatives: Mapped[list[Any]] = mapped_column(JSONB)


class Embedding(Base):
    """The fused embedding a job gave its product. No fixed width: that is the checkpoint's affair."""

    __tablename__ = "embeddings"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    product_id: Mapped[str] = mapped_column(index=True)
    model_version: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR())


class IdempotencyRecord(Base):
    """The first answer to a key. `status` and `body` are empty while that request runs under `token`."""

    __tablename__ = "idempotency_records"
    __table_args__ = (Index("ix_idempotency_records_expires_at", "expires_at"),)

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    token: Mapped[str]
    locked_until: Mapped[datetime]
    expires_at: Mapped[datetime]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[str | None]
