"""Tenants take turns in the interactive lane as well."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # CONCURRENTLY, as in 0004; under a name of its own first, so that claims are never without one.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_turns_by_lane")
        op.create_index(
            "ix_jobs_turns_by_lane",
            "jobs",
            ["lane", "tenant_id", "submitted_at"],
            postgresql_where=sa.text("status = 'queued'"),
            postgresql_concurrently=True,
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_turns")
    op.execute("ALTER INDEX ix_jobs_turns_by_lane RENAME TO ix_jobs_turns")
