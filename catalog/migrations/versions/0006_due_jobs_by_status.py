"""A sweep finds lapsed leases without reading past the queued jobs that it leaves due."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # CONCURRENTLY, as in 0004. The old index goes last: until then sweeps of either release have one.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_overdue")
        op.create_index(
            "ix_jobs_overdue",
            "jobs",
            ["lane", "status", "resend_at"],
            postgresql_where=sa.text("status IN ('queued', 'running')"),
            postgresql_concurrently=True,
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_due")
