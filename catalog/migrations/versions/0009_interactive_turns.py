"""Tenants take turns in both lanes, and the planner has one index for each question about a lane."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # CONCURRENTLY, as in 0004. The old ones go last: until then there is one for everybody.
    with op.get_context().autocommit_block():
        for lane in ("interactive", "bulk"):
            for name, columns in (("turns", ["tenant_id", "submitted_at"]), ("queued", ["submitted_at"])):
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_{name}_{lane}")
                op.create_index(
                    f"ix_jobs_{name}_{lane}",
                    "jobs",
                    columns,
                    postgresql_where=sa.text(f"CASE WHEN status = 'queued' THEN lane END = '{lane}'"),
                    postgresql_concurrently=True,
                )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_turns")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_queued")
