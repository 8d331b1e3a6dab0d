"""A deep lane's measure says how much of it each tenant holds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # The default is for web processes of the release before, which measure without it until they are replaced.
    op.add_column(
        "lane_depths",
        sa.Column("shares", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
