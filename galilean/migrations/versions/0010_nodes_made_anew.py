"""Attempts of single nodes that somebody asked for while their cluster goes on

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from galilean.db import UTCDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ASKED = sa.text("asked_at IS NOT NULL AND ready_at IS NULL AND gone_at IS NULL")


def upgrade() -> None:
    op.add_column("cluster_nodes", sa.Column("asked_at", UTCDateTime()))
    op.add_column("cluster_nodes", sa.Column("asked_as", sa.String(16), nullable=False, server_default=""))
    op.add_column("cluster_nodes", sa.Column("asked_by", sa.String(255), nullable=False, server_default=""))
    op.add_column("cluster_nodes", sa.Column("explanation", sa.JSON()))
    op.create_index(
        "ix_cluster_nodes_asked",
        "cluster_nodes",
        ["cluster_id"],
        sqlite_where=_ASKED,
        postgresql_where=_ASKED,
    )


def downgrade() -> None:
    op.drop_index("ix_cluster_nodes_asked", "cluster_nodes")
    for name in ("explanation", "asked_by", "asked_as", "asked_at"):
        op.drop_column("cluster_nodes", name)
