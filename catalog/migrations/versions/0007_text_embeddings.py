"""What the text tower made of a text, so that new photos beside it are tagged without it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "text_embeddings",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("text_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_text_embeddings_tenant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "text_id", "model_version", name="pk_text_embeddings"),
    )
    op.create_index("ix_text_embeddings_created_at", "text_embeddings", ["created_at"])
