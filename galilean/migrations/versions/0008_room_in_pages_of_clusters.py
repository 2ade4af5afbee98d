"""Room for new versions of rows in the pages of clusters

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of pages that are written from now on, which is where the clusters are that will be held.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE clusters SET (fillfactor = 70)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE clusters RESET (fillfactor)")
