"""The index that measures how fast a lane is worked off."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index(
        "ix_jobs_worked_off",
        "jobs",
        ["lane", "finished_at"],
        postgresql_where=sa.text("status IN ('succeeded', 'failed')"),
    )
