"""The index that measures how fast a lane is worked off."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # CONCURRENTLY, which cannot be part of a transaction: intake and workers go on while it is built.
    with op.get_context().autocommit_block():
        # What an attempt that broke off has left is of no use.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_worked_off")
        op.create_index(
            "ix_jobs_worked_off",
            "jobs",
            ["lane", "finished_at"],
            postgresql_where=sa.text("status IN ('succeeded', 'failed')"),
            postgresql_concurrently=True,
        )
