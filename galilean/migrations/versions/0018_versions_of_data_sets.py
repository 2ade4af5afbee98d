"""Versions of data sets, and which data a run had

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("version_of", sa.String(26), server_default="", nullable=False))
    op.add_column("datasets", sa.Column("version", sa.Integer(), server_default="0", nullable=False))
    op.create_index(
        "uq_datasets_version",
        "datasets",
        ["version_of", "version"],
        unique=True,
        sqlite_where=sa.text("version_of <> ''"),
        postgresql_where=sa.text("version_of <> ''"),
    )
    op.add_column("clusters", sa.Column("datasets", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("clusters", "datasets")
    op.drop_index("uq_datasets_version", table_name="datasets")
    op.drop_column("datasets", "version")
    op.drop_column("datasets", "version_of")
