"""Tenants take turns in the bulk lane: the index that finds who waits, and whose turn it was last."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # CONCURRENTLY, which cannot be part of a transaction: intake and workers go on while it is built. It comes
    # first, because what comes before it stays even where it breaks off.
    with op.get_context().autocommit_block():
        # What an attempt that broke off has left is of no use.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_turns")
        op.create_index(
            "ix_jobs_turns",
            "jobs",
            ["tenant_id", "submitted_at"],
            postgresql_where=sa.text("status = 'queued' AND lane = 'bulk'"),
            postgresql_concurrently=True,
        )
    op.create_table(
        "lane_turns",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("lane", name="pk_lane_turns"),
    )
