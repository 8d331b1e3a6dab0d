"""Tenants take turns in the interactive lane as well."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # CONCURRENTLY, as in 0004.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_turns_interactive")
        op.create_index(
            "ix_jobs_turns_interactive",
            "jobs",
            ["tenant_id", "submitted_at"],
            postgresql_where=sa.text("status = 'queued' AND lane = 'interactive'"),
            postgresql_concurrently=True,
        )
