"""Finds the few queued jobs that come back by their name alone, among all that are queued."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # CONCURRENTLY, as in 0004.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_suspects")
        op.create_index(
            "ix_jobs_suspects",
            "jobs",
            ["lane", "resend_at"],
            postgresql_where=sa.text("status = 'queued' AND attempts >= 2 AND error IS NULL"),
            postgresql_concurrently=True,
        )
