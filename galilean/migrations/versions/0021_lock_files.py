"""Lock files of saved Python environments

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "environment_locks",
        sa.Column("digest", sa.String(136), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("made_at", galilean.db.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_environment_locks")),
    )


def downgrade() -> None:
    op.drop_table("environment_locks")
