"""Who gave a fork to somebody of a group

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("given_by", sa.String(255), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("projects", "given_by")
