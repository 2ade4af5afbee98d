"""Disks, and which run has which

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from galilean.db import UTCDateTime

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_LIVING = sa.text("deleted_at IS NULL")
_TO_PURGE = sa.text("deleted_at IS NOT NULL AND purged_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "disks",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column(
            "name",
            sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("used_bytes", sa.BigInteger()),
        sa.Column("measured_at", UTCDateTime()),
        sa.Column("deleted_at", UTCDateTime()),
        sa.Column("purged_at", UTCDateTime()),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_disks_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disks")),
    )
    op.create_index(
        "uq_disks_name",
        "disks",
        ["owner", "name"],
        unique=True,
        sqlite_where=_LIVING,
        postgresql_where=_LIVING,
    )
    op.create_index(
        "ix_disks_to_purge", "disks", ["deleted_at"], sqlite_where=_TO_PURGE, postgresql_where=_TO_PURGE
    )
    op.create_table(
        "disk_uses",
        sa.Column("run_id", sa.String(26), nullable=False),
        sa.Column("disk_id", sa.String(26), nullable=False),
        sa.Column("writes", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["clusters.id"], name=op.f("fk_disk_uses_run_id_clusters")),
        sa.ForeignKeyConstraint(["disk_id"], ["disks.id"], name=op.f("fk_disk_uses_disk_id_disks")),
        sa.PrimaryKeyConstraint("run_id", "disk_id", name=op.f("pk_disk_uses")),
    )
    op.create_index(op.f("ix_disk_uses_disk_id"), "disk_uses", ["disk_id"])


def downgrade() -> None:
    op.drop_table("disk_uses")
    op.drop_table("disks")
