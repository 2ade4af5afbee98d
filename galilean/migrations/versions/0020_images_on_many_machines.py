"""Which images are fetched beforehand, and what happened to them on machines

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "environments", sa.Column("beforehand", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column(
        "image_places", sa.Column("beforehand", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    op.add_column("image_places", sa.Column("fetched_at", galilean.db.UTCDateTime(), nullable=True))
    op.create_table(
        "image_place_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image", sa.String(512), nullable=False),
        sa.Column("machine", sa.String(255), nullable=False),
        sa.Column("at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=True),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("why_params", sa.JSON(), nullable=True),
        sa.Column("actor", sa.String(255), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_place_events")),
    )
    op.create_index(op.f("ix_image_place_events_image_id"), "image_place_events", ["image", "id"])


def downgrade() -> None:
    op.drop_table("image_place_events")
    op.drop_column("image_places", "fetched_at")
    op.drop_column("image_places", "beforehand")
    op.drop_column("environments", "beforehand")
