"""The first tables. They are described in `catalog/tables.py`; a test holds the two together."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0001"
down_revision = None

TIMESTAMPTZ = TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "lane_depths",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("queued", sa.BigInteger(), nullable=False),
        sa.Column("measured_at", TIMESTAMPTZ, nullable=False),
        sa.PrimaryKeyConstraint("lane", name="pk_lane_depths"),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"])
    op.create_table(
        "idempotency_records",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("locked_until", TIMESTAMPTZ, nullable=False),
        sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
        sa.Column("status", sa.SmallInteger()),
        sa.Column("headers", JSONB),
        sa.Column("body", sa.Text()),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_idempotency_records_tenant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "key", name="pk_idempotency_records"),
    )
    op.create_index("ix_idempotency_records_expires_at", "idempotency_records", ["expires_at"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.Column("resend_at", TIMESTAMPTZ, nullable=False),
        sa.Column("resends", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", TIMESTAMPTZ),
        sa.Column("lease_token", sa.Text()),
        sa.Column("worker", sa.Text()),
        sa.Column("submitted_at", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", TIMESTAMPTZ),
        sa.Column("finished_at", TIMESTAMPTZ),
        sa.Column("model_name", sa.Text()),
        sa.Column("model_version", sa.Text()),
        sa.Column("error", JSONB),
        sa.CheckConstraint("(status = 'running') = (lease_token IS NOT NULL)", name="lease"),
        sa.CheckConstraint("(status IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
        sa.CheckConstraint("lane IN ('interactive', 'bulk')", name="lane"),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_jobs_tenant_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": 0.01,
            "autovacuum_vacuum_threshold": 1000,
            "fillfactor": 80,
        },
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["lane", "resend_at"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index("ix_jobs_product_id", "jobs", ["product_id"])
    op.create_index(
        "ix_jobs_queued", "jobs", ["lane", "submitted_at"], postgresql_where=sa.text("status = 'queued'")
    )
    op.create_table(
        "photos",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("created_at", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.Column("released_at", TIMESTAMPTZ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_photos_tenant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_photos"),
    )
    op.create_index("ix_photos_id", "photos", ["id"])
    op.create_index(
        "ix_photos_released_at",
        "photos",
        ["released_at"],
        postgresql_where=sa.text("released_at IS NOT NULL"),
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("tagged_job_id", sa.Text()),
        sa.Column("tagged_revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", TIMESTAMPTZ, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_products_tenant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_products"),
    )
    op.create_index("ix_products_tenant_id_id", "products", ["tenant_id", "id"])
    op.create_table(
        "embeddings",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("embedding", VECTOR(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_embeddings_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_embeddings"),
    )
    op.create_index("ix_embeddings_product_id", "embeddings", ["product_id"])
    op.create_table(
        "product_photos",
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("photo_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name="fk_product_photos_product_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "photo_id"],
            ["photos.tenant_id", "photos.id"],
            name="fk_product_photos_tenant_id_photo_id",
        ),
        sa.PrimaryKeyConstraint("product_id", "position", name="pk_product_photos"),
    )
    op.create_index("ix_product_photos_tenant_id_photo_id", "product_photos", ["tenant_id", "photo_id"])
    op.create_table(
        "tags",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("evidence_text", sa.Double()),
        sa.Column("evidence_photos", sa.Double()),
        sa.Column("alternatives", JSONB, nullable=False),
        sa.CheckConstraint("decision IN ('auto', 'review', 'abstain')", name="decision"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_tags_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "position", name="pk_tags"),
    )
