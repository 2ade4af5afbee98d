"""Whether an image was saved from a node or built from files, and from what

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("saved_images", sa.Column("how", sa.String(16), nullable=False, server_default="saved"))
    op.add_column("saved_images", sa.Column("build", sa.JSON()))


def downgrade() -> None:
    op.drop_column("saved_images", "build")
    op.drop_column("saved_images", "how")
