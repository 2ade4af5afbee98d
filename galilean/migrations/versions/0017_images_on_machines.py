"""Which image is on which machine

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_places",
        sa.Column("image", sa.String(512), nullable=False),
        sa.Column("machine", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("why_params", sa.JSON(), nullable=True),
        sa.Column("private", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("changed_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("asked_at", galilean.db.UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('present', 'pulling', 'failed', 'absent')", name=op.f("ck_image_places_state")
        ),
        sa.PrimaryKeyConstraint("image", "machine", name=op.f("pk_image_places")),
    )


def downgrade() -> None:
    op.drop_table("image_places")
