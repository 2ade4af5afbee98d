"""Images that came in as archives

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("saved_images", sa.Column("archive", sa.String(64), nullable=False, server_default=""))
    op.add_column("saved_images", sa.Column("into_id", sa.String(26), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("saved_images", "into_id")
    op.drop_column("saved_images", "archive")
