"""How the files of a cluster's project were mounted when it began

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null for clusters from before: nobody knows any more.
    op.add_column("clusters", sa.Column("work_read_only", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("clusters", "work_read_only")
